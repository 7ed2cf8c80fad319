# The one entry point, for people and for CI.
.PHONY: run test build crash faults format lint clean

run: ## install what is missing, build, start the service under ./var
	scripts/install-packages run
	swift build -c release --product ploopd
	.build/release/ploopd serve

test: ## install what the tests need, run all of them
	scripts/install-packages test
	scripts/test

build:
	swift build

crash: ## what power loss can leave of every operation: at least 100,000 states
	swift build -c release --product crash-enumeration
	.build/release/crash-enumeration

faults: ## every fault at every system call of every operation
	swift build -c release --product crash-enumeration
	.build/release/crash-enumeration --faults

format:
	swift format -i -r Sources Tests Package.swift

lint:
	swift format lint --strict -r Sources Tests Package.swift
	scripts/check-imports

clean:
	rm -rf .build
