#pragma once
// Files that the service answers with, embedded as they are at build time.
#include <stddef.h>

typedef struct {
  const unsigned char *_Nonnull bytes;
  size_t count;
} Asset;

/// openapi.yaml of the top level: the contract of the API.
Asset asset_openapi(void);

typedef struct {
  /// In Sources/CAssets/dashboard.
  const char *_Nonnull path;
  Asset asset;
} DashboardFile;

/// What the dashboard is made of.
size_t dashboard_count(void);
/// - Parameter index: less than the count.
DashboardFile dashboard_file(size_t index);

/// How the pages of the contract look.
Asset asset_docs_style(void);
