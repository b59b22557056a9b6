#!/bin/busybox sh
# The first process of the machine: finds its disk, and goes on there.
bb=/bin/busybox
$bb mount -t proc proc /proc
$bb mount -t sysfs sys /sys
$bb mount -t devtmpfs dev /dev
for module in $($bb cat /modules/order); do $bb insmod "/modules/$module.ko" || echo "init: no $module"; done
tries=0
until [ -b /dev/vda ] || [ $tries -gt 100 ]; do $bb sleep 0.1; tries=$((tries + 1)); done
$bb mount -t ext4 /dev/vda /disk || { echo "init: no disk"; $bb poweroff -f; }
for folder in proc sys dev; do $bb mount -o move "/$folder" "/disk/$folder"; done
exec $bb switch_root /disk /bin/busybox sh /guest.sh
