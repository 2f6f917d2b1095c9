/* weigh.c - the size of a model that is not there yet: it is loaded on an engine that computes
 * nothing. So no architecture's number of weights is written down a second time. */
#include "model/model.h"

int model_weigh(const checkpoint *synthetic, model_weights *out) {
    checkpoint *c = checkpoint_sizes(synthetic);
    engine *fake = c ? engine_open("fake", &(engine_options){.threads = 1}) : NULL;
    model *m = fake ? model_load(c, fake) : NULL;
    if (m) *out = (model_weights){checkpoint_parameters(c), checkpoint_bytes(c)};
    int status = m ? 0 : -1;
    model_free(m);
    engine_close(fake);
    checkpoint_close(c);
    return status;
}
