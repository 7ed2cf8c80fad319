internal import PloopClient

Ploopctl.start()
