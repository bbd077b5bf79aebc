#!/usr/bin/env bash
# Brings the real apptainer client from Debian's own packages into a folder, without privileges and
# without touching the machine's packages: for tests, on a Debian release that does not ship it.
#
#   install-apptainer.sh FOLDER        ->  FOLDER/bin/apptainer
#
# An apt of its own (state, lists and cache below FOLDER) takes apptainer from sid and what it needs,
# libc included, from trixie. The packages are unpacked, never configured, and the programs are
# pointed (patchelf, from the same tree) at that tree's loader and libraries. Idempotent; one at a
# time. Environment: APPTAINER_MIRROR (default: the machine's Debian mirror, from its apt sources).
set -euo pipefail

say() { printf 'install-apptainer: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

[ $# -eq 1 ] || fail 'usage: install-apptainer.sh FOLDER'
mkdir -p "$1"
folder=$(cd "$1" && pwd -P)
# Raise when the layout below changes, so that older installations are replaced.
layout=1

is_ready() {
  [ "$(cat "$folder/layout" 2>/dev/null)" = "$layout" ] &&
    "$folder/bin/apptainer" --version >/dev/null 2>&1
}

is_ready && exit 0
for tool in apt-get dpkg-deb flock tar; do
  command -v "$tool" >/dev/null || fail "$tool is missing; this script needs a Debian machine"
done
exec 9>"$folder/lock"
flock 9
is_ready && exit 0

case $(dpkg --print-architecture) in
  amd64) arch=amd64 triplet=x86_64-linux-gnu loader=ld-linux-x86-64.so.2 ;;
  arm64) arch=arm64 triplet=aarch64-linux-gnu loader=ld-linux-aarch64.so.1 ;;
  *) fail "no recipe for $(dpkg --print-architecture)" ;;
esac
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || fail 'the package debian-archive-keyring is missing'

# Both spellings of apt sources; the first address that ends in /debian is the main archive.
find_mirror() {
  {
    sed -n 's/^URIs:[[:space:]]*//p' /etc/apt/sources.list.d/*.sources
    sed -nE 's/^deb[[:space:]]+(\[[^]]*\][[:space:]]*)?([^[:space:]]+).*/\2/p' \
      /etc/apt/sources.list /etc/apt/sources.list.d/*.list
  } 2>/dev/null | tr -s '[:space:]' '\n' | grep -E '/debian/?$' | head -n 1
}
mirror=${APPTAINER_MIRROR:-$(find_mirror || true)}
[ -n "$mirror" ] || fail 'no Debian mirror in the apt sources; set APPTAINER_MIRROR'

# --- download ------------------------------------------------------------------------------------
apt=$folder/apt
rm -rf "$apt"
mkdir -p "$apt"/etc/{apt.conf.d,preferences.d} "$apt"/{lists,archives}/partial
: >"$apt/status"
for suite in trixie sid; do
  echo "deb [signed-by=$keyring arch=$arch] $mirror $suite main"
done >"$apt/etc/sources.list"
# trixie wherever it can, sid only for what trixie lacks.
cat >"$apt/etc/preferences" <<'END'
Package: *
Pin: release n=trixie
Pin-Priority: 900

Package: *
Pin: release a=unstable
Pin-Priority: 500
END
private_apt() {
  apt-get -qq \
    -o Dir::Etc="$apt/etc" -o Dir::Etc::sourcelist="$apt/etc/sources.list" \
    -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferences="$apt/etc/preferences" \
    -o Dir::Etc::preferencesparts=/dev/null -o Dir::State="$apt" -o Dir::State::lists="$apt/lists" \
    -o Dir::State::status="$apt/status" -o Dir::Cache="$apt" -o Dir::Cache::archives="$apt/archives" \
    -o APT::Architecture="$arch" -o APT::Architectures::="$arch" -o APT::Install-Recommends=false \
    -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::Retries=3 \
    -o Acquire::PDiffs=false -o Debug::NoLocking=true "$@" >&2
}
say 'reading package lists (trixie and sid)'
private_apt update
say 'downloading apptainer and what it needs'
private_apt -y --download-only install apptainer squashfs-tools patchelf

# --- unpack --------------------------------------------------------------------------------------
tree=$folder/root
rm -rf "$tree"
mkdir -p "$tree"/usr/{bin,sbin,lib,lib64}
for name in bin sbin lib lib64; do ln -s "usr/$name" "$tree/$name"; done
for package in "$apt"/archives/*.deb; do
  dpkg-deb --fsys-tarfile "$package" |
    tar -x -C "$tree" --keep-directory-symlink --no-same-owner \
      --exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale'
done

# --- point the programs at this tree -------------------------------------------------------------
libraries=$tree/usr/lib/$triplet
interpreter=$(readlink -f "$libraries/$loader")
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

# --- the commands --------------------------------------------------------------------------------
mkdir -p "$folder/bin" "$folder/tools"
# Only what apptainer calls: the tree's other programs must not shadow the machine's.
for tool in mksquashfs unsquashfs; do ln -sfn "$tree/usr/bin/$tool" "$folder/tools/$tool"; done
cat >"$folder/bin/apptainer" <<END
#!/bin/sh
# Written by install-apptainer.sh.
PATH=$folder/tools:\${PATH:-/usr/local/bin:/usr/bin:/bin}
export PATH
exec $tree/usr/bin/apptainer "\$@"
END
chmod 755 "$folder/bin/apptainer"
rm -rf "$apt"
version=$("$folder/bin/apptainer" --version) || fail 'the client was unpacked but does not start'
echo "$layout" >"$folder/layout"
say "$version is in $folder"
