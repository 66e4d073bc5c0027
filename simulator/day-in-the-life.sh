#!/usr/bin/env bash
# A day in the life of an admin: twenty agents, a station and a broker as real processes in a temporary directory.
# Restarts a service everywhere, fetches a large file while the broker is killed and replaced, follows a log through
# its rotation. Prints what is typed and what comes back. Needs a build (`cargo build --release`); AGENTS and BYTES
# make it larger or smaller. Ends with an error at the first thing that is not as it should be.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=${BIN:-target/release}
agents=${AGENTS:-20}
bytes=${BYTES:-104857600}
dir=$(mktemp -d "${TMPDIR:-/tmp}/steward-day.XXXXXX")
export PATH="$PWD/$bin:$PATH" STEWARD_STATE_DIR=$dir/station RUST_LOG=error
pids=()

clean_up() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap clean_up EXIT

# Shows a command as it would be typed, runs it, and shows what it says.
typed() {
    printf '\n$ %s\n' "$*"
    "$@"
}

# Waits up to a minute for a condition.
until_true() {
    local what=$1 tries=0
    shift
    until "$@" >/dev/null 2>&1; do
        ((++tries < 600)) || { echo "waited a minute for $what" >&2; exit 1; }
        sleep 0.1
    done
}

start_broker() {
    nats-server --addr 127.0.0.1 --port "${port:--1}" --ports_file_dir "$dir/ports" >"$dir/broker.log" 2>&1 &
    broker=$!
    pids+=("$broker")
    until_true 'the broker' compgen -G "$dir/ports/*_$broker.ports"
}

mkdir "$dir/ports"
broker_bin=$(steward broker path)
PATH="$(dirname "$broker_bin"):$PATH"
start_broker
url=$(python3 -c 'import glob,json,sys; print(json.load(open(glob.glob(sys.argv[1])[0]))["nats"][0])' "$dir/ports/*_$broker.ports")
port=${url##*:}

steward serve --nats "$url" >"$dir/station.log" 2>&1 &
pids+=($!)
for number in $(seq "$agents"); do
    steward-agent run --node "shop$number" --nats "$url" --heartbeat 2s --state-dir "$dir/shop$number" \
        >"$dir/shop$number.log" 2>&1 &
    pids+=($!)
done
online() { (($(steward node ls -o csv | grep -c online) >= agents)); }
until_true "$agents agents" online

echo "== $agents shops are online. Each runs a service; a command restarts it."
# The service of each shop: a process whose number stands in a file.
cat >"$dir/restart-service" <<'SERVICE'
#!/bin/sh
# Restarts the service of this shop: a sleeping process that belongs to nobody's command.
pid=$1/$STEWARD_NODE.pid
[ -f "$pid" ] && kill "$(cat "$pid")"
echo "$STEWARD_NODE restarted" && echo $$ >"$pid"
SERVICE
chmod +x "$dir/restart-service"
typed steward run --to '*' --timeout 60s -- "$dir/restart-service" "$dir"

echo
echo "== A large file comes from shop1. In the middle the broker is killed, and replaced three seconds later."
head -c "$bytes" /dev/urandom >"$dir/catalogue.bin"
cat >"$dir/fetch.json" <<FETCH
{ "to": "shop1", "method": "filefetch", "domain": "backup", "path": "$dir/catalogue.bin",
  "reply": { "to": "file", "directory": "catalogues", "file_name": "catalogue.bin" }, "timeout": "10m" }
FETCH
id=$(steward submit -o name "$dir/fetch.json")
part() { find "$STEWARD_STATE_DIR" -size "+$((bytes / 4096))k" | grep -q .; }
until_true 'the first part of the file' part
disown "$broker"
kill -9 "$broker"
echo "   (broker killed: $(find "$STEWARD_STATE_DIR" -size "+$((bytes / 4096))k" -printf '%s bytes had arrived\n' | head -1))"
sleep 3
start_broker
typed steward msg watch "$id" --timeout 120s
typed cmp "$dir/catalogue.bin" "$STEWARD_STATE_DIR/results/catalogues/shop1/catalogue.bin"
echo "the $bytes bytes are the same"

echo
echo "== A log of shop2 is followed for eight seconds while it is rotated."
cat >"$dir/tail.json" <<TAIL
{ "to": "shop2", "method": "tailfile", "domain": "till", "path": "$dir/till.log", "from": "start", "for": "8s" }
TAIL
echo 'sale 1' >"$dir/till.log"
id=$(steward submit -o name "$dir/tail.json")
(
    for sale in $(seq 2 9); do
        sleep 0.6
        ((sale == 5)) && mv "$dir/till.log" "$dir/till.log.1"
        echo "sale $sale" >>"$dir/till.log"
    done
) &
typed steward msg output --follow "$id" | tee "$dir/followed"
diff <(sed -n 's/^\(sale [0-9]*\)$/\1/p' "$dir/followed") <(seq -f 'sale %g' 9)
echo "each of the nine lines came once"
echo
echo "== What is known of the day"
typed steward msg ls
