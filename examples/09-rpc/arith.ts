/**
 * What client and server have in common.
 */
import { Schema } from "effect"
import { Rpc, RpcGroup } from "effect/rpc"

export class DivideByZero extends Schema.TaggedError<DivideByZero>()("DivideByZero", {}) {}

const Operands = { a: Schema.Int, b: Schema.Int }

export class Arith extends RpcGroup.make(
  Rpc.make("Multiply", { payload: Operands, success: Schema.Int }),
  Rpc.make("Divide", {
    payload: Operands,
    success: Schema.Struct({ quotient: Schema.Int, remainder: Schema.Int }),
    error: DivideByZero
  }),
  /** Every multiple of a number, from the first on: it never ends. */
  Rpc.make("Multiples", { payload: { of: Schema.Int }, success: Schema.Int, stream: true })
) {}
