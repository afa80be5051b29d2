#!/bin/sh
# Makes the certificates beside it, which are FOR TESTS ONLY: their keys are public. They are kept
# in the repository, good for 100 years, so that the tests need no program to make them.
set -eu
cd "$(dirname "$0")"
days=36525

ca() { # file, name
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days $days \
        -subj "/O=FOR TESTS ONLY/CN=$2" -keyout "$1.key" -out "$1.pem" 2>/dev/null
}

signed() { # file, name, extensions
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc \
        -subj "/O=FOR TESTS ONLY/CN=$2" -keyout "$1.key" -out "$1.csr" 2>/dev/null
    printf '%b' "basicConstraints=CA:FALSE\n$3\n" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days $days \
        -extfile "$1.ext" -out "$1.pem" 2>/dev/null
    rm "$1.csr" "$1.ext"
}

ca ca "test CA of collectors"
ca foreign-ca "foreign CA of collectors"
signed collector collector.test 'subjectAltName=DNS:localhost,IP:127.0.0.1'
signed elsewhere elsewhere.test 'subjectAltName=DNS:elsewhere.test'
signed node node.test 'extendedKeyUsage=clientAuth'
rm -f *.srl ca.key foreign-ca.key
chmod 600 *.key
