print("ploopd")
