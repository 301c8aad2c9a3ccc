/* libnvinfer_plugin.so.11 for tests: our graphs use no plugins, so there is nothing to register. */
int initLibNvInferPlugins(void *logger, const char *library_namespace) {
  (void)logger;
  (void)library_namespace;
  return 1;
}
