"""What is read from a kernel's machine code and from its source."""

import pytest

pytest.importorskip("triton")

from tools import assembly

PTX = """
 mov.b32 %f9, 0f4B400000;
 fma.rn.f32 %f1, %f2, %f3, %f9;
 add.rn.f32 %f4, %f1, 0f4B400000;
 mov.b32 %f9, 0f3F800000;
 fma.rn.f32 %f1, %f2, %f3, %f9;
"""
SASS = """
        /*0010*/                   IMAD.MOV.U32 R5, RZ, RZ, 0x4b400000 ;
        /*0020*/              @!P0 FFMA R4, R2, R3, R5 ;
        /*0030*/                   FFMA.FTZ R4, R2, R3, 12582912 ;
        /*0040*/                   HFMA2.MMA R6, -RZ, RZ, 14.5, 0 ;
        /*0050*/                   FFMA R7, R2, R3, R6 ;
        /*0060*/                   FADD R6, R6, 12582912 ;
        /*0070*/                   FFMA R7, R2, R3, R6 ;
"""
AMD = """
\ts_mov_b32 s3, 0x4b400000
\tv_pk_add_f32 v[16:17], v[16:17], s[2:3] op_sel_hi:[1,0]
\tv_pk_fma_f32 v[16:17], v[14:15], v[12:13], s[2:3] op_sel_hi:[1,1,0]
\tv_fmac_f32_e32 v20, v22, v20
\tv_mad_u64_u32 v[18:19], s[2:3], v42, s57, v[44:45]
\tv_mov_b32_e32 v31, 0x4b400000
\tv_mov_b32_e32 v33, v31
\tv_pk_fma_f32 v[30:31], v[10:11], v[12:13], 0 op_sel_hi:[1,0,0]
\tv_fmac_f32_e32 v33, v10, v11
"""


@pytest.mark.parametrize(
    ("text", "count"), [(PTX, 1), (SASS, 3), (AMD, 2), ("", 0)], ids=["ptx", "sass", "amd", "none"]
)
def test_the_rounding_constant_is_followed_through_registers(text, count):
    assert assembly.fused_roundings(text) == count


@pytest.mark.parametrize(
    ("precision", "types", "kind"),
    [
        ("tf32", ("i8", "i8", "i32"), "int8"),
        ("tf32", ("bf16", "bf16", "f32"), "float"),
        ("tf32x3", ("f32", "f32", "f32"), "float"),
        ("ieee", ("f32", "f32", "f32"), None),
    ],
)
def test_the_kind_of_product_is_read_from_the_source(precision, types, kind):
    a, b, acc = (f"tensor<16x16x{one}>" for one in types)
    ttir = f"%5 = tt.dot %1, %2, %3, inputPrecision = {precision} : {a} * {b} -> {acc} loc(#loc1)"
    assert assembly.product(ttir) == assembly.Product(kind)
    assert assembly.product("%1 = tt.load %0") is None
