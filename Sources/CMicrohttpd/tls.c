#include "cmicrohttpd.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <string.h>

static gnutls_datum_t datum(const char *text) {
  return (gnutls_datum_t){.data = (unsigned char *)text, .size = (unsigned int)strlen(text)};
}

const char *cmicrohttpd_tls_fault(const struct cmicrohttpd_tls *tls) {
  if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
    return "libmicrohttpd was built without TLS";
  gnutls_certificate_credentials_t credentials;
  int code = gnutls_certificate_allocate_credentials(&credentials);
  if (code < 0) return gnutls_strerror(code);
  const char *fault = NULL;
  gnutls_datum_t certificate = datum(tls->certificate), key = datum(tls->key);
  code = gnutls_certificate_set_x509_key_mem(credentials, &certificate, &key, GNUTLS_X509_FMT_PEM);
  if (code < 0) {
    fault = gnutls_strerror(code);
  } else if (tls->authorities != NULL) {
    gnutls_datum_t authorities = datum(tls->authorities);
    code = gnutls_certificate_set_x509_trust_mem(credentials, &authorities, GNUTLS_X509_FMT_PEM);
    if (code < 0) fault = gnutls_strerror(code);
    if (code == 0) fault = "there is no authority's certificate";
  }
  gnutls_certificate_free_credentials(credentials);
  return fault;
}

// Whether the authorities that the daemon was given vouch for the certificate, now and for a client.
static int is_trusted(gnutls_session_t session) {
  gnutls_typed_vdata_st use = {.type = GNUTLS_DT_KEY_PURPOSE_OID,
                               .data = (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT};
  unsigned int status = 0;
  return gnutls_certificate_verify_peers(session, &use, 1, &status) == 0 && status == 0;
}

static void tell_names(gnutls_x509_crt_t certificate,
                       void (*name)(void *context, const char *bytes, size_t count),
                       void *context) {
  char text[1024];
  size_t size = sizeof text;
  unsigned int index = 0;
  for (;; index++) {
    size = sizeof text;
    int type =
        gnutls_x509_crt_get_subject_alt_name(certificate, index, text, &size, NULL);
    // One that is too long for us is nobody's.
    if (type == GNUTLS_E_SHORT_MEMORY_BUFFER) continue;
    if (type < 0) break;
    if (type == GNUTLS_SAN_DNSNAME || type == GNUTLS_SAN_URI || type == GNUTLS_SAN_RFC822NAME)
      name(context, text, size);
  }
  // RFC 6125 6.4.4: the common name only where there is no other. Some authorities look at the others alone, and
  // leave this one to whoever asks for a certificate.
  size = sizeof text;
  if (index == 0 && gnutls_x509_crt_get_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, 0,
                                                  text, &size) == 0)
    name(context, text, size);
}

enum cmicrohttpd_client cmicrohttpd_verify_client(struct MHD_Connection *connection,
                                           void (*name)(void *context, const char *bytes,
                                                        size_t count),
                                           void *context) {
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
  if (info == NULL || info->tls_session == NULL) return CMICROHTTPD_NO_CERTIFICATE;
  gnutls_session_t session = info->tls_session;
  unsigned int count = 0;
  const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &count);
  if (chain == NULL || count == 0) return CMICROHTTPD_NO_CERTIFICATE;
  if (!is_trusted(session)) return CMICROHTTPD_UNTRUSTED;
  gnutls_x509_crt_t certificate;
  if (gnutls_x509_crt_init(&certificate) < 0) return CMICROHTTPD_UNTRUSTED;
  int isRead = gnutls_x509_crt_import(certificate, &chain[0], GNUTLS_X509_FMT_DER) == 0;
  if (isRead) tell_names(certificate, name, context);
  gnutls_x509_crt_deinit(certificate);
  return isRead ? CMICROHTTPD_TRUSTED : CMICROHTTPD_UNTRUSTED;
}
