# What is shown in the machine: a cluster of one monitor and one OSD, an image of it as a device of the kernel's NBD driver,
# and what becomes of those who use it when the process behind it dies. Says "ok: ..." for what holds, and one RESULT.
bb=/bin/busybox
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/tmp
$bb --install -s /bin 2>/dev/null
mount -t tmpfs tmp /tmp
ip link set lo up
cd /cluster

ok() { echo "ok: $* ($(cut -d. -f1 /proc/uptime) s)"; }
off() { sync; poweroff -f; }
bad() {
  echo "bad: $*"
  nacre block mapped 2>&1
  for log in $(find var -name 'map-*.log' 2>/dev/null); do tail -5 "$log"; done
  dmesg | tail -15
  echo "RESULT bad"
  off
}
# until_true SECONDS COMMAND...
until_true() {
  left=$(($1 * 5))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $left -gt 0 ] || return 1
    left=$((left - 1))
    sleep 0.2
  done
}
field() { nacre block mapped --json | sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}$/\1/p" | head -1; }
kill_behind() {
  pid=$(field process)
  kill -9 "$pid" || bad "there is no process $pid"
  until_true 10 sh -c "! kill -0 $pid"
}

words=$(cat /proc/cmdline)
case $words in
*nacre.root=*)
  # --- a root on an image -------------------------------------------------------------------------------------------
  root=${words##*nacre.root=}
  root=${root%% *}
  insmod /modules/nbd.ko
  nacre up >/tmp/up 2>&1 || { cat /tmp/up; bad "the cluster does not start again"; }
  ok "the cluster is up again"
  device=$(nacre block map "$root") || bad "the root is not mapped"
  mkdir -p /new
  mount -t ext4 "$device" /new || bad "the root is not mounted"
  mkdir -p /new/old /new/proc /new/sys /new/dev /new/tmp
  field process >/new/mapper
  cat >/new/inside.sh <<'IN'
export PATH=/bin
on=$(sed -n 's/^\([^ ]*\) \/ ext4 .*/\1/p' /proc/mounts | head -1)
case $on in /dev/nbd*) ;; *) echo "bad: the root is on $on"; exit 1 ;; esac
echo "ok: the root is on $on, the program runs from it"
md5sum -c /sums || exit 1
# The process behind the root dies; whoever runs on it waits, and goes on when the image is mapped again.
kill -9 "$(cat /mapper)"
(sleep 2; chroot /old /bin/busybox sh -c 'cd /cluster; exec nacre block map data/root' >/dev/null) &
echo 3 >/proc/sys/vm/drop_caches
dd if=/dev/urandom of=/written bs=64k count=32 conv=fsync 2>/dev/null || exit 1
md5sum /written >/written.sum
echo 3 >/proc/sys/vm/drop_caches
md5sum -c /sums /written.sum || exit 1
echo "ok: the process behind the root died, and the root went on"
IN
  # The first process of the machine goes on there; the daemons keep the root they began with.
  exec unshare -m /bin/busybox sh -c '
    for folder in proc sys dev; do mount -o bind "/$folder" "/new/$folder"; done
    cd /new && pivot_root . old || echo "bad: no other root"
    exec chroot . /bin/busybox sh -c "
      if /bin/busybox sh /inside.sh >/said 2>&1; then result=good; else result=bad; fi
      cat /said; echo RESULT \$result; sync; poweroff -f"'
  ;;
esac

# --- the driver ---------------------------------------------------------------------------------------------------------
echo "said: $(uname -sr), $(nacre --version)"
cat >cluster.toml <<'T'
name = "vm"
monitors = 1
osds = 1
mds = 0
s3 = 0
[osd_defaults]
size = "768MiB"
memory = "128MiB"
[[hosts]]
name = "h1"
[[pools]]
name = "data"
application = "block"
pg_num = 4
size = 1
T
nacre up >/tmp/up 2>&1 || { cat /tmp/up; bad "the cluster does not start"; }
ok "the cluster is up"
nacre block create data/a --size 96MiB || bad "no image"

# Without the driver it is said what to do.
why=$(nacre block map data/a 2>&1) && bad "mapped without a driver"
case $why in *"modprobe nbd"*) ok "without the driver: ${why##*error: }" ;; *) bad "$why" ;; esac
[ "$(nacre block mapped --json | tr -d ' \n')" = "[]" ] || bad "what could not be mapped is listed"
insmod /modules/nbd.ko || bad "the driver does not load"

device=$(nacre block map data/a) || bad "not mapped"
[ "$(field way)" = nbd ] && [ "$(field state)" = up ] || bad "mapped, but not by nbd"
case $device in /dev/nbd*) ok "mapped: $device" ;; *) bad "the device is $device" ;; esac
[ "$(nacre block map data/a)" = "$device" ] || bad "mapped twice"
[ "$(blockdev --getsize64 "$device")" = $((96 << 20)) ] || bad "its size is $(blockdev --getsize64 "$device")"
why=$(nacre block map data/a --way loop 2>&1) && bad "mapped in two ways"
case $why in *"by nbd and not by loop"*) ;; *) bad "$why" ;; esac

mkfs.ext4 -q -E nodiscard "$device" || bad "no file system"
mount -t ext4 "$device" /mnt || bad "no mount"
why=$(nacre block unmap data/a 2>&1) && bad "unmapped while it is used"
case $why in *"mounted at /mnt"*) ok "in use, it stays: ${why##*error: }" ;; *) bad "$why" ;; esac

# One who writes and one who reads past the cache, while the process behind the device dies three times.
(
  n=0
  while [ ! -e /tmp/stop ]; do
    dd if=/dev/urandom of=/tmp/piece bs=64k count=8 2>/dev/null
    dd if=/tmp/piece of="/mnt/f$((n % 40))" bs=64k conv=fsync 2>/dev/null || { echo "write $n" >/tmp/failed; break; }
    (cd /tmp && md5sum piece | sed "s/piece/f$((n % 40))/") >"/tmp/sum$((n % 40))"
    n=$((n + 1))
    echo $n >/tmp/written
  done
) &
writer=$!
(
  while [ ! -e /tmp/stop ]; do
    dd if="$device" of=/dev/null bs=256k count=64 iflag=direct 2>/dev/null || { echo read >/tmp/failed; break; }
  done
) &
reader=$!
wrote() { [ "$(cat /tmp/written 2>/dev/null || echo 0)" -ge "$1" ] || [ -e /tmp/failed ]; }
for round in 1 2 3; do
  before=$(cat /tmp/written 2>/dev/null || echo 0)
  until_true 120 wrote $((before + 5)) || bad "nothing is written"
  kill_behind
  [ "$(field state)" = broken ] || bad "the state is $(field state)"
  sleep 1
  at=$(cat /tmp/written)
  from=$(cut -d. -f1 /proc/uptime)
  again=$(nacre block map data/a) || bad "not mapped again"
  [ "$again" = "$device" ] || bad "another device: $again"
  until_true 60 wrote $((at + 3)) || bad "the writer does not go on"
  [ -e /tmp/failed ] && bad "an error reached those who use it: $(cat /tmp/failed)"
  ok "killed and taken over, round $round: $(($(cut -d. -f1 /proc/uptime) - from)) s until three more files were written"
done
touch /tmp/stop
wait $writer
wait $reader
[ -e /tmp/failed ] && bad "an error reached those who use it: $(cat /tmp/failed)"
echo 3 >/proc/sys/vm/drop_caches
(cd /mnt && cat /tmp/sum* | md5sum -c >/tmp/compared 2>&1) || { cat /tmp/compared; bad "bytes are lost"; }
dmesg | grep -iE 'ext4-fs error|i/o error|aborting journal' && bad "the kernel saw an error"
ok "$(cat /tmp/written) files were written, all that are left are whole"

# The size follows, up to the file system.
nacre block resize data/a --size 128MiB || bad "not resized"
grown() { [ "$(blockdev --getsize64 "$device")" = $((128 << 20)) ]; }
until_true 20 grown || bad "the device keeps its size"
resize2fs "$device" >/tmp/resized 2>&1 || { cat /tmp/resized; bad "the file system keeps its size"; }
ok "resized while it is mounted"
fstrim /mnt || bad "nothing is discarded"

# With the device gone from the record, as if the process had died right after it connected.
umount /mnt || bad "not unmounted"
e2fsck -fn "$device" >/tmp/fsck 2>&1 || { cat /tmp/fsck; bad "the file system is damaged"; }
ok "the file system is whole"
md5sum "$device" >/tmp/whole
kill_behind
sed -i '/"device"/s/: .*/: null,/' "$(find var -path '*map/*/record')"
[ "$(nacre block map data/a)" = "$device" ] || bad "the device is not found by its tag"
echo 3 >/proc/sys/vm/drop_caches
md5sum -c /tmp/whole >/dev/null 2>&1 || bad "other bytes"
ok "found without its record"
nacre block unmap data/a || bad "not unmapped"
[ "$(nacre block mapped --json | tr -d ' \n')" = "[]" ] || bad "it is still listed"
[ ! -e "/sys/block/${device#/dev/}/pid" ] || bad "the device is still connected"
ok "unmapped, the device is free"

# A snapshot cannot be written. Nobody waits longer than was said.
nacre block snap create data/a@s || bad "no snapshot"
device=$(nacre block map data/a@s --grace 2) || bad "the snapshot is not mapped"
[ "$(blockdev --getro "$device")" = 1 ] || bad "a snapshot can be written"
md5sum "$device" | cut -d' ' -f1 >/tmp/snapped
[ "$(cat /tmp/snapped)" = "$(cut -d' ' -f1 /tmp/whole)" ] || bad "the snapshot has other bytes"
kill_behind
echo 3 >/proc/sys/vm/drop_caches
dd if="$device" of=/dev/null bs=64k count=16 iflag=direct 2>/dev/null && bad "read from nobody"
ok "who waited for two seconds got an error"
nacre block unmap data/a@s || bad "a broken mapping is not unmapped"
[ ! -e "/sys/block/${device#/dev/}/pid" ] || bad "the broken device is still connected"
ok "a broken mapping is taken away"

# Two at once. A broken one that is waited for is neither mapped in another way nor taken away by the way. By force it is.
nacre block create data/b --size 32MiB || bad "no image"
first=$(nacre block map data/a) || bad "not mapped"
kill_behind
second=$(nacre block map data/b) || bad "a second image is not mapped"
[ "$first" != "$second" ] || bad "two images are one device"
[ "$(nacre block map data/a)" = "$first" ] || bad "the first is another device now"
mount -t ext4 "$first" /mnt || bad "no mount"
nacre block unmap data/b || bad "the second is not unmapped"
kill_behind
for other in "--read-only" "--way loop"; do
  why=$(nacre block map data/a $other 2>&1) && bad "mapped with $other under a mount"
  case "$other $why" in
  *read-only*"waits for the image"* | *loop*"/dev/fuse is not there"*) ;;
  *) bad "$why" ;;
  esac
done
why=$(nacre block unmap data/a 2>&1) && bad "a broken mapping in use was taken away"
case $why in *"mounted at /mnt"*) ;; *) bad "$why" ;; esac
[ "$(nacre block map data/a)" = "$first" ] || bad "not taken over after all that"
ls /mnt >/dev/null || bad "the file system is gone"
nacre block unmap --force data/a || bad "not by force"
# What was taken away from its users is theirs until they are gone: the image gets another device meanwhile.
again=$(nacre block map data/a) || bad "not mapped beside the device that was taken away"
[ "$again" != "$first" ] || bad "a device that was taken away came back"
umount /mnt
nacre block unmap data/a || bad "not unmapped"
for device in "$first" "$again"; do
  [ ! -e "/sys/block/${device#/dev/}/pid" ] || bad "$device is still connected"
done
ok "two at once; nothing is taken away from who waits, but by force"

# In the foreground, as under systemd: SIGTERM waits for the last user.
nacre block map data/a --foreground >/tmp/device 2>/tmp/log &
mapper=$!
until_true 60 test -s /tmp/device || bad "not mapped in the foreground: $(cat /tmp/log)"
device=$(cat /tmp/device)
mount -t ext4 "$device" /mnt || bad "no mount: the file system did not survive the force"
kill -TERM $mapper
until_true 20 grep -q "waits until the device is used no more" /tmp/log || bad "it does not wait: $(cat /tmp/log)"
dd if=/dev/urandom of=/mnt/late bs=64k count=4 conv=fsync 2>/dev/null || bad "it serves no more"
umount /mnt
wait $mapper || bad "it ended with $?"
[ ! -e "/sys/block/${device#/dev/}/pid" ] || bad "the device is still connected"
ok "SIGTERM waited for the last user"

# For the second boot: a root on an image.
nacre block create data/root --size 64MiB || bad "no image"
device=$(nacre block map data/root) || bad "not mapped"
mkfs.ext4 -q -E nodiscard "$device" && mount -t ext4 "$device" /mnt || bad "no root"
mkdir -p /mnt/bin
cp /bin/busybox /mnt/bin/busybox
(cd /mnt && for name in sh cat md5sum dd sed head echo kill sleep chroot mount sync poweroff; do ln -s busybox bin/$name; done)
dd if=/dev/urandom of=/mnt/content bs=64k count=64 2>/dev/null
(cd /mnt && md5sum content bin/busybox | sed 's, \([^ ]*\)$, /\1,' >sums)
umount /mnt && nacre block unmap data/root || bad "the root is not let go"
ok "a root was made"
nacre down >/tmp/down 2>&1 || { cat /tmp/down; bad "the cluster does not stop"; }
echo "RESULT good"
off
