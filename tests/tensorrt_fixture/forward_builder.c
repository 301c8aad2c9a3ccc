/* libnvinfer.so.11 for tests: forwards TensorRT's factory functions to TensorRT for RTX.
 *
 * The official Python bindings link against libnvinfer.so.11, which cannot be had from PyPI. The
 * libraries of TensorRT for RTX can, export the same factories, and need no GPU to build an engine.
 * The factories compare the caller's version with their own, so each forward passes the version of
 * the library it calls.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static void *rtx_symbol(const char *name) {
  static void *library;
  if (!library) library = dlopen("libtensorrt_rtx.so.1", RTLD_NOW | RTLD_GLOBAL);
  void *symbol = library ? dlsym(library, name) : NULL;
  if (!symbol) {
    fprintf(stderr, "forwarding library: %s\n", dlerror());
    abort();
  }
  return symbol;
}

int32_t getInferLibVersion(void) {
  int32_t (*version)(void) = rtx_symbol("getInferLibVersion");
  return version();
}

int32_t getInferLibMajorVersion(void) { return 11; }
int32_t getInferLibMinorVersion(void) { return 4; }
int32_t getInferLibPatchVersion(void) { return 0; }
int32_t getInferLibBuildVersion(void) { return 106; }

void *createInferBuilder_INTERNAL(void *logger, int32_t version) {
  (void)version;
  void *(*create)(void *, int32_t) = rtx_symbol("createInferBuilder_INTERNAL");
  return create(logger, getInferLibVersion());
}

void *createInferRuntime_INTERNAL(void *logger, int32_t version) {
  (void)version;
  void *(*create)(void *, int32_t) = rtx_symbol("createInferRuntime_INTERNAL");
  return create(logger, getInferLibVersion());
}

void *createInferRefitter_INTERNAL(void *engine, void *logger, int32_t version) {
  (void)version;
  void *(*create)(void *, void *, int32_t) = rtx_symbol("createInferRefitter_INTERNAL");
  return create(engine, logger, getInferLibVersion());
}

void *getPluginRegistry(void) {
  void *(*registry)(void) = rtx_symbol("getPluginRegistry");
  return registry();
}

void *getBuilderPluginRegistry(int capability) {
  void *(*registry)(int) = rtx_symbol("getBuilderPluginRegistry");
  return registry(capability);
}

void *getLogger(void) {
  void *(*logger)(void) = rtx_symbol("getLogger");
  return logger();
}

/* TensorRT 11.4's bindings do not know the compute capabilities of TensorRT for RTX. Both calls
 * are virtuals of the configuration's implementation, found by their own error messages when
 * called with -1: slots 55 and 57 of TensorRT for RTX 1.7.1. `config` is an IBuilderConfig*, whose
 * second word points to the implementation. */
struct implementation {
  void **virtuals;
};
struct builder_config {
  void **virtuals;
  struct implementation *implementation;
};

int trtseg_set_compute_capability_count(struct builder_config *config, int32_t count) {
  struct implementation *self = config->implementation;
  _Bool (*set)(void *, int32_t) = self->virtuals[55];
  return set(self, count);
}

int trtseg_set_compute_capability(struct builder_config *config, int32_t value, int32_t index) {
  struct implementation *self = config->implementation;
  _Bool (*set)(void *, int32_t, int32_t) = self->virtuals[57];
  return set(self, value, index);
}
