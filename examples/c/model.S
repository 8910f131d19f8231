/* A .pgpt file inside of the program, where the runtime wants it: at a multiple of 64. */
    .section .rodata
    .balign 64
    .global model_begin
model_begin:
    .incbin MODEL
    .global model_end
model_end:
    .section .note.GNU-stack, "", %progbits
