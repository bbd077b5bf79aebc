#!/usr/bin/env bash
# Brings the real apptainer client from Debian's own packages into a folder: for tests, on a Debian
# release that does not ship it. See debian.sh for how. Idempotent; one at a time.
#
#   install-apptainer.sh FOLDER        ->  FOLDER/bin/apptainer
set -euo pipefail
. "$(dirname "$0")/debian.sh"

[ $# -eq 1 ] || fail 'usage: install-apptainer.sh FOLDER'
starts() { "$folder/bin/apptainer" --version; }
begin "$1" 1
unpack apptainer squashfs-tools patchelf
# apptainer starts programs of its own, so they are pointed at the tree's loader and libraries.
for program in "$tree"/usr/bin/{apptainer,mksquashfs,unsquashfs} "$libraries/apptainer/bin/starter"; do
  # DT_RPATH, not DT_RUNPATH: only the former holds for the libraries' own needs too.
  "$interpreter" --library-path "$libraries" "$tree/usr/bin/patchelf" \
    --set-interpreter "$interpreter" --force-rpath --set-rpath "$libraries" "$program"
done

# apptainer looks for ../etc and ../var beside its bin, starter two levels up from its own.
for name in etc var; do
  rm -rf "$tree/usr/$name"
  ln -s "../$name" "$tree/usr/$name"
  ln -s "../../$name" "$tree/usr/lib/$name"
done
ln -s . "$tree/usr/lib/lib"
ln -s ../bin "$tree/usr/lib/bin"
mkdir -p "$tree/var/lib/apptainer/mnt/session"

mkdir -p "$folder/bin" "$folder/tools"
# Only what apptainer calls: the tree's other programs must not shadow the machine's.
for tool in mksquashfs unsquashfs; do ln -sfn "$tree/usr/bin/$tool" "$folder/tools/$tool"; done
cat >"$folder/bin/apptainer" <<SH
#!/bin/sh
# Written by install-apptainer.sh.
PATH=$folder/tools:\${PATH:-/usr/local/bin:/usr/bin:/bin}
export PATH
exec $tree/usr/bin/apptainer "\$@"
SH
chmod 755 "$folder/bin/apptainer"
finish
say "$(starts) is in $folder"
