#include "cgnutls.h"

#include <gnutls/x509.h>

// Whether the authorities that the server was given vouch for the certificate, now and for a client.
static int is_trusted(gnutls_session_t session) {
  gnutls_typed_vdata_st use = {.type = GNUTLS_DT_KEY_PURPOSE_OID,
                               .data = (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT};
  unsigned int status = 0;
  return gnutls_certificate_verify_peers(session, &use, 1, &status) == 0 && status == 0;
}

static void tell_names(gnutls_x509_crt_t certificate, cgnutls_name name, void *context) {
  char text[1024];
  size_t size = sizeof text;
  unsigned int index = 0;
  for (;; index++) {
    size = sizeof text;
    int type = gnutls_x509_crt_get_subject_alt_name(certificate, index, text, &size, NULL);
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

enum cgnutls_client cgnutls_verify_client(gnutls_session_t session, cgnutls_name name,
                                          void *context) {
  // Only where certificates are what the two have agreed on.
  if (gnutls_auth_client_get_type(session) != GNUTLS_CRD_CERTIFICATE)
    return CGNUTLS_NO_CERTIFICATE;
  unsigned int count = 0;
  const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &count);
  if (chain == NULL || count == 0) return CGNUTLS_NO_CERTIFICATE;
  if (!is_trusted(session)) return CGNUTLS_UNTRUSTED;
  gnutls_x509_crt_t certificate;
  if (gnutls_x509_crt_init(&certificate) < 0) return CGNUTLS_UNTRUSTED;
  int isRead = gnutls_x509_crt_import(certificate, &chain[0], GNUTLS_X509_FMT_DER) == 0;
  if (isRead && name != NULL) tell_names(certificate, name, context);
  gnutls_x509_crt_deinit(certificate);
  return isRead ? CGNUTLS_TRUSTED : CGNUTLS_UNTRUSTED;
}
