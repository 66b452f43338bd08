#!/usr/bin/env bash
# Two real drills of PostgreSQL: a synchronous and an asynchronous standby, the
# latter behind a slowed link. Reports go to out/demo/<drill>/, what the drills kept
# as evidence to out/demo/evidence/: the reports name it, and the labs are removed.
set -euo pipefail
cd "$(dirname "$0")/../.."
fd=out/bin/firedrill
work=out/demo-lab
mkdir -p out/demo
down() { for l in sync async; do [ -e "$work/$l/lab.json" ] && "$fd" lab down --force --dir "$work/$l" || true; done; }
trap down EXIT
down
rm -rf "$work"
evidence=out/demo/evidence/$(date +%Y%m%dT%H%M%S)
status=0
for kind in sync async; do
  case $kind in
    sync) title='Synchronous standby' link=(--sync) ;;
    async) title='Asynchronous standby behind a link of 50 ms, lost with the primary' link=(--link-delay 50ms) ;;
  esac
  echo
  echo "=== $title: kill -9, promote, check, fail back ==="
  "$fd" lab up --dir "$work/$kind" --name "postgres-$kind" --stable 10s --evidence "$evidence/$kind" "${link[@]}"
  for try in 1 2; do
    code=0
    "$fd" run "$work/$kind/drill.yaml" --state-dir out/demo-state --out out/demo || code=$?
    [ "$code" = 2 ] || break
    # Honest figures need an observer that kept its schedule.
    echo "This measurement does not count (see above), most likely because the machine is busy."
  done
  "$fd" lab down --force --dir "$work/$kind"
  # The synchronous drill must pass; the asynchronous one really loses writes,
  # which its objective of 0 records does not allow: FAIL is the right answer.
  case "$kind:$code" in
    sync:0 | async:1) ;;
    *) echo "unexpected exit code $code for $kind" >&2; status=1 ;;
  esac
done
echo
echo "Reports:"
find out/demo -maxdepth 2 -name 'report.*' | sort
echo "Evidence: $evidence"
echo "Proof that a history is whole: $fd --state-dir out/demo-state verify --file out/demo/postgres-sync-1/events.jsonl"
exit "$status"
