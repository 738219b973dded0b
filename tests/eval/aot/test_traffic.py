"""Bytes are counted where they move: loops every turn, slices in part, main memory alone."""

from eval.aot.traffic import count_bytes

# As the TPU compiler prints it: S(1) is the fast memory, other arrays lie in main memory.
LOOP = """HloModule jit_f, is_scheduled=true

%fused_update (param_0: f32[10,4,8], param_1: f32[4,8], param_2: s32[]) -> (f32[10,4,8], f32[4,8]) {
  %param_0 = f32[10,4,8]{2,1,0:T(8,128)} parameter(0)
  %param_1 = f32[4,8]{1,0:T(8,128)S(1)} parameter(1)
  %tanh.1 = f32[4,8]{1,0:T(8,128)} tanh(%param_1)
  %bitcast.1 = f32[1,4,8]{2,1,0:T(8,128)} bitcast(%tanh.1)
  %param_2 = s32[]{:T(128)S(6)} parameter(2)
  %constant.1 = s32[]{:T(128)} constant(0)
  %update.1 = f32[10,4,8]{2,1,0} dynamic-update-slice(%param_0, %bitcast.1, %param_2, %constant.1)
  ROOT %tuple.1 = (f32[10,4,8]{2,1,0:T(8,128)}, f32[4,8]{1,0:T(8,128)S(1)}) tuple(%update.1, %tanh.1)
}

%fused_slice (param_0.1: f32[10,4,8], param_1.1: s32[]) -> bf16[1,4,8] {
  %param_0.1 = f32[10,4,8]{2,1,0:T(8,128)} parameter(0)
  %param_1.1 = s32[]{:T(128)S(6)} parameter(1)
  %constant.2 = s32[]{:T(128)} constant(0)
  %slice.1 = f32[1,4,8]{2,1,0} dynamic-slice(%param_0.1, %param_1.1, %constant.2)
  ROOT %convert.1 = bf16[1,4,8]{2,1,0:T(8,128)(2,1)} convert(%slice.1)
}

%body (param.1: (s32[], f32[10,4,8], f32[4,8])) -> (s32[], f32[10,4,8], f32[4,8]) {
  %param.1 = (s32[]{:T(128)S(6)}, f32[10,4,8]{2,1,0}, f32[4,8]{1,0:T(8,128)S(1)}) parameter(0)
  %i = s32[]{:T(128)S(6)} get-tuple-element(%param.1), index=0
  %kept = f32[10,4,8]{2,1,0:T(8,128)} get-tuple-element(%param.1), index=1
  %c = f32[4,8]{1,0:T(8,128)S(1)} get-tuple-element(%param.1), index=2
  %both = (f32[10,4,8]{2,1,0:T(8,128)}, f32[4,8]{1,0:T(8,128)S(1)}) fusion(%kept, %c, %i), kind=kLoop, calls=%fused_update
  %kept.1 = f32[10,4,8]{2,1,0:T(8,128)} get-tuple-element(%both), index=0
  %c.1 = f32[4,8]{1,0:T(8,128)S(1)} get-tuple-element(%both), index=1
  %part = bf16[1,4,8]{2,1,0:T(8,128)(2,1)} fusion(%kept.1, %i), kind=kLoop, calls=%fused_slice
  ROOT %tuple.2 = (s32[]{:T(128)S(6)}, f32[10,4,8]{2,1,0}, f32[4,8]{1,0:T(8,128)S(1)}) tuple(%i, %kept.1, %c.1)
}

%condition (param.2: (s32[], f32[10,4,8], f32[4,8])) -> pred[] {
  %param.2 = (s32[]{:T(128)S(6)}, f32[10,4,8]{2,1,0}, f32[4,8]{1,0:T(8,128)S(1)}) parameter(0)
  ROOT %true = pred[]{:T(512)} constant(true)
}

ENTRY %main (x: f32[4,8], kept.2: f32[10,4,8]) -> f32[4,8] {
  %x = f32[4,8]{1,0:T(8,128)} parameter(0)
  %kept.2 = f32[10,4,8]{2,1,0:T(8,128)} parameter(1)
  %zero = s32[]{:T(128)S(6)} constant(0)
  %copy-start.1 = (f32[4,8]{1,0:T(8,128)S(1)}, f32[4,8]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%x)
  %copy-done.1 = f32[4,8]{1,0:T(8,128)S(1)} copy-done(%copy-start.1)
  %tuple.3 = (s32[]{:T(128)S(6)}, f32[10,4,8]{2,1,0}, f32[4,8]{1,0:T(8,128)S(1)}) tuple(%zero, %kept.2, %copy-done.1)
  %while.1 = (s32[]{:T(128)S(6)}, f32[10,4,8]{2,1,0}, f32[4,8]{1,0:T(8,128)S(1)}) while(%tuple.3), condition=%condition, body=%body
  %last = f32[4,8]{1,0:T(8,128)S(1)} get-tuple-element(%while.1), index=2
  ROOT %out = f32[4,8]{1,0:T(8,128)} copy(%last)
}
"""  # noqa: E501


def test_a_loop_with_an_update_and_a_slice():
    row = 4 * 8 * 4  # bytes of one f32[4,8]
    turn = row + row + row // 2  # the update written; the slice read and written as bfloat16
    assert count_bytes(LOOP, turns=10) == row + 10 * turn + row
    assert count_bytes(LOOP, turns=3) == row + 3 * turn + row


def test_plain_operations_move_operands_and_results():
    program = """HloModule m

ENTRY %main (a: bf16[16,8], b: f32[]) -> f32[16,8] {
  %a = bf16[16,8]{1,0} parameter(0)
  %b = f32[] parameter(1)
  %wide = f32[16,8]{1,0} broadcast(%b), dimensions={}
  ROOT %sum = f32[16,8]{1,0} fusion(%a, %wide, %a), kind=kLoop, calls=%adder
}

%adder (p: bf16[16,8], q: f32[16,8], r: bf16[16,8]) -> f32[16,8] {
  %p = bf16[16,8]{1,0} parameter(0)
  %q = f32[16,8]{1,0} parameter(1)
  %r = bf16[16,8]{1,0} parameter(2)
  %p.1 = f32[16,8]{1,0} convert(%p)
  ROOT %add = f32[16,8]{1,0} add(%p.1, %q)
}
"""
    assert count_bytes(program, turns=1) == (4 + 512) + (256 + 512 + 256 + 512)
    narrow = program.replace("bf16[16,8]{1,0} parameter(0)", "f8e4m3fn[16,8]{1,0} parameter(0)")
    assert count_bytes(narrow, turns=1) == (4 + 512) + (128 + 512 + 128 + 512)
