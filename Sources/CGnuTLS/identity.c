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

static const char *load_keys(struct cgnutls_identity *identity, const char *path) {
  int code = gnutls_psk_allocate_server_credentials(&identity->keys);
  if (code >= 0) code = gnutls_psk_set_server_credentials_file(identity->keys, path);
  return code < 0 ? gnutls_strerror(code) : NULL;
}

static const char *load(struct cgnutls_identity *identity, const struct cgnutls_files *files) {
  const char *fault = NULL;
  if (files->certificate != NULL) fault = load_certificates(identity, files);
  if (fault == NULL && files->psk_path != NULL) fault = load_keys(identity, files->psk_path);
  if (fault != NULL) return fault;
  // The floor of 2.2.6 of the NBD protocol is 1.2, and older ones have been broken.
  int code = gnutls_priority_init(
      &identity->priorities,
      files->psk_path == NULL
          ? "SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"
          : "SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:+ECDHE-PSK:+DHE-PSK:+PSK",
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
  free(identity);
}
