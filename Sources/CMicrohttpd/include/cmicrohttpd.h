// libmicrohttpd and, as plain functions, the few of its calls that are variadic in C.
#ifndef PLOOPD_CMICROHTTPD_H
#define PLOOPD_CMICROHTTPD_H

#include <microhttpd.h>

#endif
