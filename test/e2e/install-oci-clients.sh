#!/usr/bin/env bash
# Brings skopeo, crane and oras, clients of OCI registries, and a static busybox to make images of, from
# Debian's own packages into a folder: for tests. See debian.sh for how. Idempotent; one at a time.
#
#   install-oci-clients.sh FOLDER        ->  FOLDER/bin/{skopeo,crane,oras,busybox}
set -euo pipefail
. "$(dirname "$0")/debian.sh"

[ $# -eq 1 ] || fail 'usage: install-oci-clients.sh FOLDER'
starts() {
  "$folder/bin/skopeo" --version && "$folder/bin/crane" version && "$folder/bin/oras" version &&
    "$folder/bin/busybox" true
}
begin "$1" 1
unpack skopeo crane oras busybox-static
rm -rf "$folder/bin" && mkdir "$folder/bin"
ln -sfn "$tree/usr/bin/busybox" "$folder/bin/busybox"
# By the loader, since patchelf breaks skopeo.
for program in skopeo crane oras; do
  cat >"$folder/bin/$program" <<SH
#!/bin/sh
# Written by install-oci-clients.sh.
exec $interpreter --library-path $libraries $tree/usr/bin/$program "\$@"
SH
  chmod 755 "$folder/bin/$program"
done
finish
say "skopeo, crane, oras and busybox are in $folder"
