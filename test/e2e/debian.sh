# Programs of Debian's own packages in a folder, without privileges and without touching the machine's
# packages: functions for the install-*.sh of this folder, which source it.
#
# An apt of its own (state, lists and cache below the folder) takes packages from trixie, and from sid
# what trixie lacks. They are unpacked below root, never configured, and programs run with that tree's
# loader and libraries. Environment: APPTAINER_MIRROR (default: the
# machine's Debian mirror, from its apt sources).

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
fail() { say "$*"; exit 1; }

# begin FOLDER LAYOUT: sets folder, tree and libraries; ends the script where `starts`, which the
# caller defines, succeeds on what is there; else waits for whoever else installs there. LAYOUT is
# raised when the tree changes, so that older installations are replaced.
begin() {
  mkdir -p "$1"
  folder=$(cd "$1" && pwd -P)
  layout=$2
  tree=$folder/root
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
  libraries=$tree/usr/lib/$triplet
}

is_ready() { [ "$(cat "$folder/layout" 2>/dev/null)" = "$layout" ] && starts >/dev/null 2>&1; }

# Both spellings of apt sources; the first address that ends in /debian is the main archive.
find_mirror() {
  {
    sed -n 's/^URIs:[[:space:]]*//p' /etc/apt/sources.list.d/*.sources
    sed -nE 's/^deb[[:space:]]+(\[[^]]*\][[:space:]]*)?([^[:space:]]+).*/\2/p' \
      /etc/apt/sources.list /etc/apt/sources.list.d/*.list
  } 2>/dev/null | tr -s '[:space:]' '\n' | grep -E '/debian/?$' | head -n 1
}

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

# unpack PACKAGE...: they and what they need, below root
unpack() {
  local keyring=/usr/share/keyrings/debian-archive-keyring.gpg mirror suite name package
  [ -r "$keyring" ] || fail 'the package debian-archive-keyring is missing'
  mirror=${APPTAINER_MIRROR:-$(find_mirror || true)}
  [ -n "$mirror" ] || fail 'no Debian mirror in the apt sources; set APPTAINER_MIRROR'
  apt=$folder/apt
  rm -rf "$apt"
  mkdir -p "$apt"/etc/{apt.conf.d,preferences.d} "$apt"/{lists,archives}/partial
  : >"$apt/status"
  for suite in trixie sid; do
    echo "deb [signed-by=$keyring arch=$arch] $mirror $suite main"
  done >"$apt/etc/sources.list"
  # trixie wherever it can, sid only for what trixie lacks.
  cat >"$apt/etc/preferences" <<'APT'
Package: *
Pin: release n=trixie
Pin-Priority: 900

Package: *
Pin: release a=unstable
Pin-Priority: 500
APT
  say 'reading package lists (trixie and sid)'
  private_apt update
  say "downloading $* and what they need"
  private_apt -y --download-only install "$@"

  rm -rf "$tree"
  mkdir -p "$tree"/usr/{bin,sbin,lib,lib64}
  for name in bin sbin lib lib64; do ln -s "usr/$name" "$tree/$name"; done
  for package in "$apt"/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" |
      tar -x -C "$tree" --keep-directory-symlink --no-same-owner \
        --exclude='./usr/share/doc' --exclude='./usr/share/man' --exclude='./usr/share/locale'
  done
  interpreter=$(readlink -f "$libraries/$loader")
}

# finish: what was installed starts, and is noted as ready
finish() {
  rm -rf "$apt"
  starts >/dev/null || fail 'the programs were unpacked but do not start'
  echo "$layout" >"$folder/layout"
}
