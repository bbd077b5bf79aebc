#!/bin/sh
# Runs the official conformance suite of OCI distribution against a registry that is running.
#   scripts/oci-conformance.sh SUITE URL TOKEN [USER]
# SUITE is a checkout of opencontainers/distribution-spec, or a built `conformance` program; the
# suite is built and run outside this repository and needs Go. All categories are on. USER (the
# token's owner, `conformance` by default) owns the repositories that it pushes to.
set -eu

suite=$1 url=$2 token=$3 user=${4:-conformance}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -d "$suite" ]; then
  (cd "$suite/conformance" && go build -o "$work/conformance" .)
  suite=$work/conformance
fi

case $url in
https://*) tls=enabled ;;
*) tls=disabled ;;
esac
registry=${url#*://}

export OCI_REGISTRY="${registry%/}" OCI_TLS=$tls
export OCI_REPO1="$user/conformance/repo1" OCI_REPO2="$user/conformance/repo2"
export OCI_USERNAME="$user" OCI_PASSWORD="$token"
export OCI_VERSION="${OCI_VERSION:-1.1}" OCI_RESULTS_DIR="${OCI_RESULTS_DIR:-$work/results}"
export OCI_API_BLOBS_DIGEST_HEADER=true OCI_API_BLOBS_UPLOAD_CANCEL=true
export OCI_API_BLOBS_MOUNT_ANONYMOUS=true OCI_API_MANIFESTS_DIGEST_HEADER=true
export OCI_API_MANIFESTS_TAG_PARAM=true OCI_DATA_SHA512=true

status=0
"$suite" >"$work/report" 2>&1 || status=$?
sed -n '/^OCI Conformance Result/,$p' "$work/report"
if [ "$status" -ne 0 ]; then sed -n '1,/^Configuration/p' "$work/report"; fi
exit "$status"
