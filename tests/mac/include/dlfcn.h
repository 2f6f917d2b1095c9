/* dlfcn.h - opening the frameworks of a Mac that fake_mac.c plays. */
#ifndef FAKE_DLFCN_H
#define FAKE_DLFCN_H

#define RTLD_LAZY    1
#define RTLD_DEFAULT ((void *)-2)
#define dlopen       fake_dlopen
#define dlsym        fake_dlsym

void *fake_dlopen(const char *path, int mode);
void *fake_dlsym(void *library, const char *symbol);

#endif
