# The one entry point, for people and for CI.
.PHONY: run man test test-system package build fuzz crash crash-long faults index-cache kills damage asan tsan lock-order soak fleet contract bench bench-compare format lint clean

run: ## install what is missing, build, start the service under ./var
	scripts/install-packages run
	swift build -c release --product ploopd
	swift build -c release --product ploopctl
	.build/release/ploopd serve

man: ## manual pages of ploopd and ploopctl, a page for each command, in .build/man
	scripts/make-manuals .build/man

test: ## install what the tests need, run all of them
	scripts/install-packages test
	scripts/install-python
	scripts/test

test-system: ## what needs a package, a chroot or a virtual machine; as root
	scripts/install-packages system
	scripts/test-system

package: ## the Debian package, in .build/package
	scripts/install-packages system
	scripts/build-package

build:
	swift build

crash: ## what power loss can leave of every operation: at least 100,000 states
	scripts/install-packages run
	swift build -c release --product crash-enumeration
	.build/release/crash-enumeration --keep Tests/CrashTests/failed-seeds
	swift build --build-tests
	PLOOPD_STATE_SAMPLES=20 PLOOPD_HOST_SAMPLES=1 swift test --skip-build --disable-xctest --filter StateCrashTests

crash-long: ## the same until a million different states have been looked at
	scripts/install-packages run
	swift build -c release --product crash-enumeration
	.build/release/crash-enumeration --distinct 1000001 --keep Tests/CrashTests/failed-seeds

faults: ## every fault at every system call of every operation
	swift build -c release --product crash-enumeration
	.build/release/crash-enumeration --faults

fuzz: ## libFuzzer over all that reads what anybody may have written; FUZZ_SECONDS=1800 is the long form
	scripts/fuzz

index-cache: ## all tests and crash states with next to nothing of the indexes in memory, and with 1 MiB
	scripts/install-packages test
	swift build --build-tests
	swift build -c release --product crash-enumeration
	scripts/test-index-cache

kills: ## 200 kills in the middle of changes of a chain
	swift build --build-tests
	PLOOPD_KILLS=200 swift test --skip-build --disable-xctest --filter "ChainKillTests|BackupKillTests|BackupPhaseTests|ClonePhaseTests"

asan: ## the tests of files, formats, disks and NBD under AddressSanitizer
	scripts/sanitize address

tsan: ## the same under ThreadSanitizer
	scripts/sanitize thread

lock-order: ## which locks the tests of files, disks and NBD take within which, beside docs/locking.md
	swift build --build-tests
	: > .build/lock-nestings
	PLOOPD_LOCK_NESTINGS=.build/lock-nestings swift test --skip-build --disable-xctest --filter '^Ploop(IO|Device|NBD)Tests\.'
	scripts/check-lock-order .build/lock-nestings

damage: ## 10,000 images damaged at random; the seed is printed, and PLOOPD_SEED=N gives it back
	swift build --build-tests
	PLOOPD_DAMAGE=10000 PLOOPD_SEED=$${PLOOPD_SEED:-$$(date +%s)} \
	  swift test --skip-build --disable-xctest --filter RandomDamageTests

soak: ## disks under guests, operations and mishaps for SOAK seconds (600); PLOOPD_SEED=N repeats the choices of one
	scripts/install-packages test
	swift build -c release --product ploopd
	scripts/soak

fleet: ## three services that have disks together, by three etcd, with 500 devices; then what 1,000 nodes ask of etcd
	scripts/install-packages test
	swift build -c release --product ploopd
	FLEET_DEVICES=500 scripts/test-fleet
	PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 Tests/Fleet/simulate.py 1000 20

contract: ## the long examination of the service by its contract; PLOOPD_SEED=N gives one back
	scripts/install-packages test
	scripts/install-python
	swift build --build-tests
	PLOOPD_EXAMPLES=100 PLOOPD_SEED=$${PLOOPD_SEED:-$$(date +%s)} \
	  swift test --skip-build --disable-xctest --filter ContractExaminationTests

bench: ## ploopd beside qemu-nbd, nbdkit and others; BENCH="--rows read-1,cow --rounds 3" chooses
	scripts/install-packages bench
	swift build -c release --product ploopd
	swift build -c release --product bench
	.build/release/bench run $(BENCH)

bench-compare: ## ploopd beside that of another commit: make bench-compare BASE=main
	scripts/install-packages bench
	swift build -c release --product ploopd
	swift build -c release --product bench
	.build/release/bench compare $(BASE) $(BENCH)

format:
	swift format -i -r Sources Tests Benchmarks Fuzz Package.swift

lint:
	swift format lint --strict -r Sources Tests Benchmarks Fuzz Package.swift
	scripts/check-imports

clean:
	rm -rf .build
