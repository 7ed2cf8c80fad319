#pragma once
#include "cgnutls.h"

struct cgnutls_key {
  unsigned char *user;
  size_t user_bytes;
  unsigned char *key;
  size_t key_bytes;
};

struct cgnutls_identity {
  gnutls_certificate_credentials_t certificates; // NULL: none are shown
  gnutls_psk_server_credentials_t keys;          // NULL: none are known
  gnutls_priority_t priorities;
  struct cgnutls_key *known;
  size_t key_count, key_room;
};
