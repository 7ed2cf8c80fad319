internal import ArgumentParser
internal import PloopTerminal

PloopdCommand.main(CommandWords.own)
