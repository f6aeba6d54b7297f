# stub until the decoder lands
