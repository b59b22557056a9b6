#!/usr/bin/env bash
# What a cluster of this machine gives: idle cost, operations, how long clients wait when an OSD dies, stops or restarts,
# and how fast the data of an OSD that is out finds a new home. Called by `./x bench cluster`; figures only, no judgement.
# KILLS, STOPS, RESTARTS: how often each; SECONDS_EACH: for how long each kind of operation; MOVED_MIB: how much an OSD
# holds when it is put out (0: leave that away). Takes 18 GiB of disk for a while.
set -euo pipefail
nacre=${NACRE:-$(pwd)/target/debug/nacre}
kills=${KILLS:-20} stops=${STOPS:-5} restarts=${RESTARTS:-10} each=${SECONDS_EACH:-5} moved=${MOVED_MIB:-2048}
folder=$(mktemp -d "${TMPDIR:-/tmp}/nacre-bench.XXXXXX")
cd "$folder"
trap '"$nacre" down >/dev/null 2>&1 || true; cd /; rm -rf "$folder"' EXIT

{
  printf 'name = "bench"\nbase_port = %s\nmds = 0\ns3 = 0\nmonitors = 3\nosds = 4\n' "${BASE_PORT:-7900}"
  printf '[osd_defaults]\nsize = "4GiB"\nmemory = "256MiB"\n'
  for host in 0 1 2 3; do printf '[[hosts]]\nname = "host%s"\n' "$host"; done
  printf '[[pools]]\nname = "data"\napplication = "bench"\npg_num = 32\n'
} >cluster.toml

field() { sed -n "s/^ *\"$1\": \([0-9.]*\),\{0,1\}$/\1/p"; }
pids() { cat var/bench/run/{mon,osd}.*.pid; }
ticks() { for pid in $(pids); do awk '{print $14 + $15}' "/proc/$pid/stat"; done | awk '{sum += $1} END {print sum}'; }
resident() { for pid in $(pids); do awk '/VmRSS/ {print $2}' "/proc/$pid/status"; done | awk '{sum += $1} END {print int(sum / 1024)}'; }
clean() { until "$nacre" pg explain >/dev/null 2>&1; do sleep 0.1; done; }
middle() { sort -n | awk '{v[NR] = $1} END {printf "median %.0f ms, worst %.0f ms of %d\n", v[int((NR + 1) / 2)], v[NR], NR}'; }

began=$(date +%s.%N)
"$nacre" up >/dev/null
awk -v a="$began" -v b="$(date +%s.%N)" 'BEGIN {printf "from an empty folder to healthy: %.1f s\n", b - a}'
before=$(ticks)
sleep 10
awk -v a="$before" -v b="$(ticks)" -v m="$(resident)" 'BEGIN {printf "idle: %d MiB resident, %.2f %% of a core\n", m, (b - a) / 10}'

bench() { "$nacre" bench object data --mode "$1" --size "$2" --depth "$3" --time "$each" --json; }
printf '\n%-26s %10s %9s %9s %9s %9s %9s\n' operation per_s MiB/s p50_us p99_us cpu_us client_us
for what in "overwrite 4096 16" "overwrite 4096 1" "read 4096 16" "mixed 4096 16" "write 4194304 4" "sequential 4194304 4"; do
  read -r mode size depth <<<"$what"
  bench "$mode" "$size" "$depth" >figures
  printf '%-26s %10.0f %9.0f %9.0f %9.0f %9.0f %9.0f\n' "$mode $size, depth $depth" "$(field iops <figures)" \
    "$(field mib_s <figures)" "$(field p50_us <figures)" "$(field p99_us <figures)" "$(field cpu_us_per_op <figures)" \
    "$(field client_cpu_us_per_op <figures)"
done
printf 'most resident memory of an OSD so far: %.0f MiB\n\n' \
  "$(for pid in $(cat var/bench/run/osd.*.pid); do awk '/VmHWM/ {print $2}' "/proc/$pid/status"; done | sort -n | tail -1 | awk '{print $1 / 1024}')"

# The longest time in which no operation of sixteen clients ended, with something done to an OSD in the middle.
gaps() { # how often, what
  local n
  for ((n = 0; n < $1; n++)); do
    clean
    "$nacre" bench object data --mode overwrite --size 4096 --depth 16 --time 7 --json >figures &
    local client=$!
    sleep 2
    "$2" $((n % 4))
    wait $client
    field longest_gap_ms <figures
  done | middle
}
killed() { kill -9 "$(cat var/bench/run/osd."$1".pid)"; }
stopped() {
  local pid
  pid=$(cat var/bench/run/osd."$1".pid)
  kill -STOP "$pid"
  sleep 4
  kill -CONT "$pid"
}
restarted() { "$nacre" restart osd."$1" >/dev/null; }
printf 'longest stall, OSD killed (-9):   %s\n' "$(gaps "$kills" killed)"
printf 'longest stall, OSD stopped:       %s\n' "$(gaps "$stops" stopped)"
printf 'longest stall, OSD restarted:     %s\n' "$(gaps "$restarts" restarted)"

((moved > 0)) || exit 0
# Objects of 4 MiB in three copies on four OSDs: each OSD holds three quarters of them.
objects=$((moved / 3))
clean
"$nacre" bench object data --mode overwrite --size 4096 --depth 1 --time 1 --objects "$objects" --keep --json >/dev/null
clean
small() { "$nacre" bench object data -n small --mode "$1" --size 4096 --depth 4 --time 4 --json | field p99_us; }
quiet_writes=$(small overwrite) quiet_reads=$(small read)
device=$(dd if=/dev/zero of=device bs=4M count=256 oflag=direct conv=fdatasync 2>&1 | awk '/copied/ {print $(NF - 1) * ($NF == "GB/s" ? 1000 : 1)}')
rm device
began=$(date +%s.%N)
"$nacre" osd out 3 >/dev/null
{ while [[ ! -e moved ]]; do printf '%s %s\n' "$(small overwrite)" "$(small read)"; done; } >noticed &
clients=$!
while "$nacre" pg explain >/dev/null 2>&1; do :; done
clean
awk -v a="$began" -v b="$(date +%s.%N)" -v moved="$moved" -v device="$device" 'BEGIN {
  printf "\n%d MiB of an OSD that is out found new homes in %.1f s: %.0f MiB/s; one file of this disk takes %.0f MB/s\n", moved, b - a, moved / (b - a), device}'
touch moved
wait $clients
awk -v w="$quiet_writes" -v r="$quiet_reads" '{ if ($1 > a) a = $1; if ($2 > b) b = $2 } END {
  printf "p99 of 4 KiB writes: %d us in quiet, %d us beside that; of reads: %d us, %d us\n", w, a, r, b}' noticed
