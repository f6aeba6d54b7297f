typedef int ionm1_stub;
