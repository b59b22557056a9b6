#!/usr/bin/env bash
# Boots a small machine whose kernel has an NBD driver, and lets `guest.sh` show there what `nacre block map` does with it.
# A second boot reads its root from an image. Called by `./x soak vm`; fails if anything does not hold.
# NACRE: the program; VM_MINUTES: after how many minutes a boot has hung. Takes 2 GiB of disk and of memory for a while.
#
# Fetched with apt and unpacked below the cache, nothing is installed: a kernel of Debian, busybox, and qemu if there is
# none. The machine has no network: the cluster, one monitor and one OSD, runs in it. All is emulated, and takes minutes;
# VM_ACCEL=kvm is quicker where that works.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
nacre=${NACRE:-$here/../../target/debug/nacre}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/nacre/vm
minutes=${VM_MINUTES:-12}

say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'vm: %s\n' "$*" >&2; exit 1; }

work=$(mktemp -d "${TMPDIR:-/tmp}/nacre-vm.XXXXXX")
trap 'rm -rf "$work"' EXIT

# fetch NAME PACKAGE...: unpacked into $cache/NAME; what is there already is taken as it is
fetch() {
  local name=$1
  shift
  [[ -d $cache/$name ]] && return
  say "fetching $*"
  mkdir -p "$work/deb" "$work/$name"
  (cd "$work/deb" && apt-get download -o APT::Sandbox::User=root "$@" >/dev/null) || die "apt-get download $* failed (apt-get update?)"
  local deb
  for deb in "$work/deb"/*.deb; do dpkg -x "$deb" "$work/$name"; done
  rm -rf "$work/deb"
  mkdir -p "$cache"
  mv "$work/$name" "$cache/$name"
}

case $(uname -m) in
  x86_64) arch=amd64 machine=q35 console=ttyS0 qemu=qemu-system-x86_64 package=qemu-system-x86 ;;
  *) die "there is no kernel known for $(uname -m)" ;;
esac
image=$(apt-cache depends "linux-image-$arch" 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
[[ -n $image ]] || die "apt knows no linux-image-$arch (apt-get update?)"
fetch "$image" "$image"
fetch busybox busybox-static
kernel=$(echo "$cache/$image"/boot/vmlinuz-*)
busybox=$cache/busybox/bin/busybox

libraries=() data=()
if ! command -v "$qemu" >/dev/null; then
  # All of it that is not installed, and only that.
  mapfile -t parts < <(apt-get install -s --no-install-recommends "$package" 2>/dev/null | awk '$1 == "Inst" {print $2}')
  fetch qemu "${parts[@]}"
  root=$cache/qemu/usr
  mapfile -t libraries < <(find "$root/lib" "$cache/qemu/lib" -name '*.so*' -printf '%h\n' 2>/dev/null | sort -u)
  data=(-L "$root/share/qemu" -L "$root/share/seabios")
  qemu=$root/bin/$qemu
fi

say "making the machine"
# take ROOT PROGRAM...: with the libraries it needs, where they are here
take() {
  local root=$1 file
  shift
  for file in "$@" $(ldd "$@" 2>/dev/null | grep -o '/[^ :)]*' | sort -u); do
    mkdir -p "$root$(dirname "$file")"
    cp -L --update=none "$file" "$root$file" 2>/dev/null || cp -L "$file" "$root$file"
  done
}
program() { command -v "$1" || PATH=/usr/sbin:/sbin:$PATH command -v "$1" || die "there is no $1 here"; }
root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,tmp,mnt,modules,cluster}
cp "$busybox" "$root/bin/busybox"
take "$root" "$(program mkfs.ext4)" "$(program e2fsck)" "$(program resize2fs)" "$(program blockdev)" "$(program losetup)"
take "$root" "$nacre"
mkdir -p "$root/bin"
if [[ $nacre != /bin/nacre ]]; then mv "$root$nacre" "$root/bin/nacre"; fi
if command -v strip >/dev/null; then strip "$root/bin/nacre"; fi
cp "$here/guest.sh" "$root/guest.sh"

modules=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk crc32c_generic crc16 mbcache jbd2 ext4)
early=$work/early
mkdir -p "$early"/{bin,modules,disk,proc,sys,dev}
cp "$busybox" "$early/bin/busybox"
for module in "${modules[@]}"; do
  file=$(find "$cache/$image/lib/modules" -name "$module.ko" | head -1)
  # What is not a module is built in.
  if [[ -n $file ]]; then
    cp "$file" "$early/modules/"
    echo "$module" >>"$early/modules/order"
  fi
done
cp "$(find "$cache/$image/lib/modules" -name nbd.ko)" "$root/modules/"
install -m 755 "$here/init.sh" "$early/init"
(cd "$early" && find . | "$busybox" cpio -o -H newc 2>/dev/null | gzip -1) >"$work/initrd"
"$(program mke2fs)" -qF -t ext4 -d "$root" "$work/disk" 2G
rm -rf "$root" "$early"

# Emulated unless it is said otherwise: a /dev/kvm that is there need not work.
accel=${VM_ACCEL:-tcg}
# boot NAME WORDS: what the machine says goes to standard output as it comes
boot() {
  local name=$1 words=$2
  say "booting ($name, $accel)"
  (
    if ((${#libraries[@]})); then LD_LIBRARY_PATH=$(IFS=:; echo "${libraries[*]}"); export LD_LIBRARY_PATH; fi
    exec timeout --kill-after=10 "$((minutes * 60))" "$qemu" -machine "$machine" -accel "$accel" -cpu max -smp 2 -m 1536 \
      "${data[@]}" -nodefaults -no-user-config -no-reboot -display none -serial stdio -nic none \
      -drive "file=$work/disk,format=raw,if=virtio,cache=unsafe" -kernel "$kernel" -initrd "$work/initrd" \
      -append "console=$console quiet loglevel=4 panic=-1 $words"
  ) </dev/null | tr -d '\r' | tee "$work/said" | grep -E '^(ok|bad|said): ' || true
  if ! grep -q '^RESULT good$' "$work/said"; then
    tail -40 "$work/said" >&2
    die "$name: not what was wanted; the end of what the machine said is above"
  fi
}
began=$SECONDS
boot driver ""
boot root "nacre.root=data/root"
say "all held, in $((SECONDS - began)) s"
