#define _GNU_SOURCE
#include "identity.h"

#include <stdlib.h>
#include <string.h>

static gnutls_datum_t datum(const char *text) {
  return (gnutls_datum_t){.data = (unsigned char *)text, .size = (unsigned int)strlen(text)};
}

static const char *load_certificates(struct cgnutls_identity *identity,
                                     const struct cgnutls_files *files) {
  int code = gnutls_certificate_allocate_credentials(&identity->certificates);
  if (code < 0) return gnutls_strerror(code);
  gnutls_datum_t certificate = datum(files->certificate), key = datum(files->key);
  code = gnutls_certificate_set_x509_key_mem(identity->certificates, &certificate, &key,
                                             GNUTLS_X509_FMT_PEM);
  if (code < 0) return gnutls_strerror(code);
  if (files->authorities != NULL) {
    gnutls_datum_t authorities = datum(files->authorities);
    code = gnutls_certificate_set_x509_trust_mem(identity->certificates, &authorities,
                                                 GNUTLS_X509_FMT_PEM);
    if (code < 0) return gnutls_strerror(code);
    if (code == 0) return "there is no authority's certificate";
  }
  if (files->revoked != NULL) {
    gnutls_datum_t revoked = datum(files->revoked);
    code = gnutls_certificate_set_x509_crl_mem(identity->certificates, &revoked,
                                               GNUTLS_X509_FMT_PEM);
    if (code < 0) return gnutls_strerror(code);
  }
  return NULL;
}

// Told to GnuTLS, which frees the key. Who is not known gets a key that nobody has, and fails as one with a wrong key.
static int find_key(gnutls_session_t handle, const gnutls_datum_t *user, gnutls_datum_t *key) {
  enum { NOBODY = 1 };
  const struct cgnutls_identity *identity = gnutls_session_get_ptr(handle);
  if (identity == NULL) return -1;
  for (size_t index = 0; index < identity->key_count; index++) {
    const struct cgnutls_key *known = &identity->known[index];
    if (known->user_bytes != user->size || memcmp(known->user, user->data, user->size) != 0) continue;
    key->data = gnutls_malloc(known->key_bytes);
    if (key->data == NULL) return -1;
    memcpy(key->data, known->key, known->key_bytes);
    key->size = (unsigned int)known->key_bytes;
    return 0;
  }
  return NOBODY;
}

static const char *load_keys(struct cgnutls_identity *identity) {
  int code = gnutls_psk_allocate_server_credentials(&identity->keys);
  if (code < 0) return gnutls_strerror(code);
  gnutls_psk_set_server_credentials_function2(identity->keys, find_key);
  return NULL;
}

int cgnutls_add_key(struct cgnutls_identity *identity, const void *user, size_t user_bytes,
                    const void *key, size_t key_bytes) {
  if (identity->key_count == identity->key_room) {
    size_t room = identity->key_room * 2 + 16;
    struct cgnutls_key *more = reallocarray(identity->known, room, sizeof *more);
    if (more == NULL) return -1;
    identity->known = more;
    identity->key_room = room;
  }
  struct cgnutls_key known = {malloc(user_bytes), user_bytes, malloc(key_bytes), key_bytes};
  if (known.user == NULL || known.key == NULL) {
    free(known.user);
    free(known.key);
    return -1;
  }
  memcpy(known.user, user, user_bytes);
  memcpy(known.key, key, key_bytes);
  identity->known[identity->key_count++] = known;
  return 0;
}

static const char *load(struct cgnutls_identity *identity, const struct cgnutls_files *files) {
  const char *fault = NULL;
  if (files->certificate != NULL) fault = load_certificates(identity, files);
  if (fault == NULL && files->takes_keys != 0) fault = load_keys(identity);
  if (fault != NULL) return fault;
  // The floor of 2.2.6 of the NBD protocol is 1.2, and older ones have been broken. Nothing without an exchange of keys
  // of its own: with static RSA, or a pre-shared key alone, who learns it later reads what was said before.
  int code = gnutls_priority_init(&identity->priorities,
                                  files->takes_keys == 0
                                      ? CGNUTLS_PRIORITIES
                                      : CGNUTLS_PRIORITIES ":+ECDHE-PSK:+DHE-PSK",
                                  NULL);
  return code < 0 ? gnutls_strerror(code) : NULL;
}

struct cgnutls_identity *cgnutls_identity_new(const struct cgnutls_files *files,
                                              const char **fault) {
  struct cgnutls_identity *identity = calloc(1, sizeof *identity);
  *fault = identity == NULL ? "no memory" : load(identity, files);
  if (*fault == NULL) return identity;
  cgnutls_identity_free(identity);
  return NULL;
}

void cgnutls_identity_free(struct cgnutls_identity *identity) {
  if (identity == NULL) return;
  if (identity->priorities != NULL) gnutls_priority_deinit(identity->priorities);
  if (identity->certificates != NULL) gnutls_certificate_free_credentials(identity->certificates);
  if (identity->keys != NULL) gnutls_psk_free_server_credentials(identity->keys);
  for (size_t index = 0; index < identity->key_count; index++) {
    explicit_bzero(identity->known[index].key, identity->known[index].key_bytes);
    free(identity->known[index].key);
    free(identity->known[index].user);
  }
  free(identity->known);
  free(identity);
}
