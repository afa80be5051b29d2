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

signed() { # file, name, CA, days, extensions
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc \
        -subj "/O=FOR TESTS ONLY/CN=$2" -keyout "$1.key" -out "$1.csr" 2>/dev/null
    printf '%b' "basicConstraints=CA:FALSE\n$5\n" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA "$3.pem" -CAkey "$3.key" -CAcreateserial -days "$4" \
        -extfile "$1.ext" -out "$1.pem" 2>/dev/null
    rm "$1.csr" "$1.ext"
}

ca ca "test CA"
ca foreign-ca "foreign CA"
signed node node.test ca $days 'subjectAltName=DNS:node.test,DNS:localhost,IP:127.0.0.1'
signed renewed node.test ca $days 'subjectAltName=DNS:node.test,DNS:localhost,IP:127.0.0.1'
signed ct ct1.test ca $days 'subjectAltName=DNS:ct1.test'
signed mr mr1.test ca $days 'subjectAltName=DNS:mr1.test,IP:127.0.0.1'
signed client-only client.test ca $days 'extendedKeyUsage=clientAuth'
signed stranger ct1.test foreign-ca $days 'subjectAltName=DNS:ct1.test'
signed expired old.test ca 0 'subjectAltName=DNS:old.test,IP:127.0.0.1'
openssl pkey -in node.key -aes-256-cbc -passout pass:tests -out encrypted.key
rm -f *.srl ca.key foreign-ca.key
chmod 600 *.key
