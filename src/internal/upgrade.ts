/**
 * The handler of one request that may upgrade its connection, in an Effect application.
 */
import type * as Fiber from "effect/Fiber"
import type { HttpServerRequest } from "effect/http/HttpServerRequest"
import type { Connection } from "./connection.ts"
import { Handler } from "./handler.ts"

/** What the adapter keeps of a request that may upgrade. Private to it, and pinned by a test. */
interface Upgradable {
  readonly upgradeState?: { upgradeWith: (...args: ReadonlyArray<never>) => unknown }
}

/**
 * Until it upgrades it is a request like any other: curl and Java ask for `h2c` with each first request, and take any
 * answer. From then on it may be interrupted, but only while no busy section is live inside it.
 */
export class Upgrade extends Handler {
  /** Its handler has asked for the connection. */
  upgrading = false

  constructor(fiber: Fiber.Fiber<unknown, unknown>, connection: Connection | undefined, request: HttpServerRequest) {
    super(fiber, connection, false)
    const state = (request as unknown as Upgradable).upgradeState!
    const { upgradeWith } = state
    // The state is shared by the views of the request that routers make.
    state.upgradeWith = (...args) => {
      this.upgrading = true
      this.onIdle()
      return upgradeWith(...args)
    }
  }

  protected override get isLeavable(): boolean {
    return this.upgrading
  }
}
