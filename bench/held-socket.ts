/**
 * The handler of a WebSocket that answers nothing, and lasts as long as its client or its server will have it.
 */
import { Effect } from "effect"
import { HttpServerRequest, HttpServerResponse } from "effect/http"

export const heldSocket = Effect.gen(function* () {
  const request = yield* HttpServerRequest.HttpServerRequest
  const socket = yield* request.upgrade
  const { pull } = yield* socket.reader
  yield* Effect.ignore(Effect.forever(pull))
  return HttpServerResponse.empty()
})
