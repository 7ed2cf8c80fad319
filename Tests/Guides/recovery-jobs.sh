# docs/recovery.md, "Jobs".

# cancelled: $job is a job that was cancelled before its end.
cancelled() {
  fresh
  write 7 0 4M
  slowly ploopctl run hash vm1
  quietly ploopctl jobs cancel "$job"
  quietly ploopctl jobs wait "$job" || true
}
recovery:job-active() {
  fresh
  write 7 0 4M
  slowly ploopctl run hash vm1
  refused job-active ploopctl jobs delete "$job"
  hurry
  typed
  quietly ploopctl jobs delete "$job"
}
recovery:job-finished() {
  cancelled
  refused job-finished ploopctl jobs cancel "$job"
  typed
}
recovery:dependency-failed() {
  cancelled
  local first=$job after
  quietly ploopctl run hash vm1 --after "$first" --wait --json || true
  says dependency-failed
  after=$(last_job)
  typed
  says cancelled
  typed
  quietly ploopctl jobs retry "$after"
}
# There is no second service here; trying anew is the same for any job.
recovery:peer-refused() {
  cancelled
  typed
}
