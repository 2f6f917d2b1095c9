/* base.h - what every folder may use: errors, memory, text, JSON, options, files, clock, numbers,
 * threads. The folder's one public header; base includes nothing of the rest of the program. */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include "base/arena.h"
#include "base/array.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/options.h"
#include "base/pool.h"
#include "base/process.h"
#include "base/quantize.h"
#include "base/random.h"
#include "base/say.h"
#include "base/str.h"
#include "base/vocabulary.h"

#endif
