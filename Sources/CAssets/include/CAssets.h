#pragma once
// Files that the service answers with, embedded as they are at build time.
#include <stddef.h>

typedef struct {
  const unsigned char *bytes;
  size_t count;
} Asset;

/// openapi.yaml of the top level: the contract of the API.
Asset asset_openapi(void);
