/* libnvonnxparser.so.11 for tests: forwards to the ONNX parser of TensorRT for RTX. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static void *parser_symbol(const char *name) {
  static void *library;
  if (!library) {
    /* The parser resolves the builder's symbols in the global scope. */
    dlopen("libtensorrt_rtx.so.1", RTLD_NOW | RTLD_GLOBAL);
    library = dlopen("libtensorrt_onnxparser_rtx.so.1", RTLD_NOW | RTLD_GLOBAL);
  }
  void *symbol = library ? dlsym(library, name) : NULL;
  if (!symbol) {
    fprintf(stderr, "forwarding library: %s\n", dlerror());
    abort();
  }
  return symbol;
}

void *createNvOnnxParser_INTERNAL(void *network, void *logger, int version) {
  void *(*create)(void *, void *, int) = parser_symbol("createNvOnnxParser_INTERNAL");
  return create(network, logger, version);
}

void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int32_t version) {
  void *(*create)(void *, void *, int32_t) = parser_symbol("createNvOnnxParserRefitter_INTERNAL");
  return create(refitter, logger, version);
}

int getNvOnnxParserVersion(void) {
  int (*version)(void) = parser_symbol("getNvOnnxParserVersion");
  return version();
}
