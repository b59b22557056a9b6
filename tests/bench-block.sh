#!/usr/bin/env bash
# What block images of a cluster on this machine give: `nacre block bench`, fio over NBD and fio on a mapped device, with
# the CPU time of all daemons for each operation; and what it costs to have images mapped that nobody uses. As root, with
# fio. Figures only, no judgement. SECONDS_EACH: for how long each kind of operation; MAPPED: how many images are mapped;
# PARTS: which of `ops idle`.
set -euo pipefail
nacre=${NACRE:-$(pwd)/target/debug/nacre}
each=${SECONDS_EACH:-10} mapped=${MAPPED:-100} parts=${PARTS:-ops idle}
folder=$(mktemp -d "${TMPDIR:-/tmp}/nacre-bench.XXXXXX")
cd "$folder"
server=
finish() {
  [[ -z $server ]] || kill "$server" 2>/dev/null || true
  "$nacre" block mapped --json 2>/dev/null | sed -n 's/.*"image": "\(.*\)",/\1/p' | while read -r image; do
    "$nacre" block unmap --force "$image" || true
  done
  "$nacre" down >/dev/null 2>&1 || true
  cd /
  rm -rf "$folder"
}
trap finish EXIT

{
  printf 'name = "bench"\nbase_port = %s\nmonitors = 1\nmds = 0\ns3 = 0\nosds = 3\n' "${BASE_PORT:-7800}"
  printf '[osd_defaults]\nsize = "1536MiB"\nmemory = "128MiB"\n'
  for host in 0 1 2; do printf '[[hosts]]\nname = "host%s"\n' "$host"; done
  printf '[[pools]]\nname = "data"\napplication = "block"\npg_num = 32\n'
} >cluster.toml
"$nacre" up >/dev/null

cluster() { cat var/bench/run/{mon,osd}.*.pid; }
# Nanoseconds of CPU of processes, all their threads.
spent() { for pid in "$@"; do cat "/proc/$pid"/task/*/schedstat; done 2>/dev/null | awk '{sum += $1} END {printf "%.0f\n", sum}'; }
kept() { for pid in "$@"; do awk '/^Pss:/ {print $2}' "/proc/$pid/smaps_rollup"; done | awk '{sum += $1} END {printf "%.1f", sum / 1024}'; }

line() { printf '%-36s %9s %8s %8s %8s %9s %9s %9s\n' "$@"; }
loads="write,4096,1 write,4096,32 read,4096,1 read,4096,32 sequential-write,1048576,4 sequential-read,1048576,4"
shared() { # how many operations, before, after: of the cluster and of what is in front of it, microseconds for each
  awk -v n="$1" -v a="$2" -v b="$3" 'BEGIN {printf "%.0f", (b - a) / 1000 / (n > 0 ? n : 1)}'
}

measure() { # what it is called, process in front, arguments of fio
  local name=$1 front=$2
  shift 2
  for load in $loads; do
    IFS=, read -r kind size depth <<<"$load"
    case $kind in
      write) rw=randwrite first=47 ;;
      read) rw=randread first=6 ;;
      sequential-write) rw=write first=47 ;;
      sequential-read) rw=read first=6 ;;
    esac
    local before after front_before front_after began ended
    before=$(spent $(cluster)) front_before=$(spent "$front")
    began=$(awk '{print $3 + $4 + $5 + $6}' <(cut -d' ' -f12-17 /proc/$$/stat))
    fio --name=bench --minimal "$@" --rw=$rw --bs="$size" --iodepth="$depth" --size=512m --time_based --runtime="$each" >figures
    ended=$(awk '{print $3 + $4 + $5 + $6}' <(cut -d' ' -f12-17 /proc/$$/stat))
    after=$(spent $(cluster)) front_after=$(spent "$front")
    awk -F';' -v f=$first -v name="$name $kind $size x $depth" -v size="$size" -v a="$before" -v b="$after" \
      -v c="$front_before" -v d="$front_after" -v client=$((ended - began)) '
      function part(text) { sub(/.*=/, "", text); return text }
      NF > 60 {
        n = $(f + 2) * $(f + 3) / 1000; if (n < 1) n = 1
        printf "%-36s %9.0f %8.1f %8s %8s %9.0f %9.0f %9.0f\n", name, $(f + 2), $(f + 1) / 1024, part($(f + 18)), part($(f + 24)),
          (b - a) / 1000 / n, (d - c) / 1000 / n, client * 10000 / n
      }' figures
  done
}

operations() {
  "$nacre" block create data/a --size 512MiB
  "$nacre" block bench data/a write --block 1MiB --depth 4 --sequential --seconds 8 >/dev/null
  line operation per_s MiB/s p50_us p99_us cluster front client
  for load in $loads; do
    IFS=, read -r kind size depth <<<"$load"
    before=$(spent $(cluster))
    "$nacre" block bench data/a "${kind##*-}" --block "${size}B" --depth "$depth" --seconds "$each" --json \
      $([[ $kind == *-* ]] && echo --sequential) >figures
    after=$(spent $(cluster))
    field() { sed -n "s/^ *\"$1\": \([0-9.]*\),\{0,1\}$/\1/p" figures; }
    count=$(field operations) seconds=$(field seconds)
    line "block bench $kind $size x $depth" "$(awk -v n="$count" -v s="$seconds" 'BEGIN {printf "%.0f", n / s}')" \
      "$(awk -v n="$count" -v s="$seconds" -v b="$size" 'BEGIN {printf "%.1f", n * b / s / 1048576}')" \
      "$(field p50_us)" "$(field p99_us)" "$(shared "$count" "$before" "$after")" - "$(field cpu_us | cut -d. -f1)"
  done

  "$nacre" nbd --pool data --socket nbd.sock >nbd.log 2>&1 &
  server=$!
  until [[ -S nbd.sock ]]; do sleep 0.05; done
  measure "fio over NBD," "$server" --ioengine=nbd "--uri=nbd+unix:///a?socket=$folder/nbd.sock"
  kill "$server"
  wait "$server" || true
  server=

  device=$("$nacre" block map data/a)
  front=$("$nacre" block mapped --json | sed -n 's/.*"process": \([0-9]*\).*/\1/p')
  measure "fio on a mapped device," "$front" --ioengine=libaio --direct=1 "--filename=$device"
  "$nacre" block unmap data/a
  "$nacre" block rm data/a
}

cost() { # of what
  local before
  before=$(spent "$@")
  sleep 60
  awk -v a="$before" -v b="$(spent "$@")" 'BEGIN {printf "%.1f ms of CPU", (b - a) / 1e6}'
}
idle() {
  printf '\nidle, each for 60 s:\n'
  printf 'cluster with no image mapped: %s\n' "$(cost $(cluster))"
  for ((n = 0; n < mapped; n++)); do
    "$nacre" block create "data/idle$n" --size 64MiB
    "$nacre" block map "data/idle$n" >/dev/null
  done
  fronts=$("$nacre" block mapped --json | sed -n 's/.*"process": \([0-9]*\).*/\1/p')
  sleep 15
  { cost $(cluster) >with & cost $fronts >behind; wait $!; }
  printf 'cluster with %d mapped: %s\n' "$mapped" "$(cat with)"
  printf 'the %d processes behind the devices: %s, %s MiB of memory of their own (PSS)\n' "$mapped" "$(cat behind)" "$(kept $fronts)"
}

for part in $parts; do
  case $part in
    ops) operations ;;
    idle) idle ;;
  esac
done
