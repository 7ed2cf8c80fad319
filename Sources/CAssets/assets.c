#include "CAssets.h"

#pragma clang diagnostic ignored "-Wc23-extensions"

static const unsigned char openapi[] = {
#embed "../../openapi.yaml"
};

Asset asset_openapi(void) {
  return (Asset){openapi, sizeof openapi};
}

static const unsigned char docs_style[] = {
#embed "docs.css"
};

Asset asset_docs_style(void) {
  return (Asset){docs_style, sizeof docs_style};
}
