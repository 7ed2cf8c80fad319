internal import ArgumentParser

PloopdCommand.main()
