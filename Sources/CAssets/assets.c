#include "CAssets.h"

#pragma clang diagnostic ignored "-Wc23-extensions"

static const unsigned char openapi[] = {
#embed "../../openapi.yaml"
};

Asset asset_openapi(void) {
  return (Asset){openapi, sizeof openapi};
}
