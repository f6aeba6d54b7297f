# stub until the kernels land
