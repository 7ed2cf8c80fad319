#pragma once
#include "cgnutls.h"

struct cgnutls_identity {
  gnutls_certificate_credentials_t certificates; // NULL: none are shown
  gnutls_psk_server_credentials_t keys;          // NULL: none are known
  gnutls_priority_t priorities;
};
