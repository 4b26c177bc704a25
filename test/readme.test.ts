import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { beside, start } from "./support/program.ts"
import * as Snippets from "./support/snippets.ts"

const { readme, snippets } = Snippets
const servers = snippets.filter(({ isProgram, listeners }) => isProgram && listeners > 0)
const announce = beside(import.meta.url, "support/announce.ts")

describe("the code in the README and in the docstrings", () => {
  const directory = Snippets.makeDirectory()
  afterAll(() => Snippets.removeDirectory(directory))

  it("is there", () => {
    assert.isTrue(Snippets.hasReadme, `${readme} is missing`)
    for (const path of [readme, "src/"]) {
      assert.isTrue(
        servers.some(({ where }) => where.startsWith(path)),
        `${path} shows no complete program`
      )
    }
  })

  it.live("compiles, all of it, with nothing but its own imports", () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* Effect.promise(() => Snippets.typeCheck(directory)), "")
    })
  )

  // They wait, for the end of a lame duck or of the start of the others.
  describe.concurrent("serves until SIGTERM", () => {
    for (const server of servers) {
      // Ending with 0 is what Kms.teardown is for; without it a signal ends a program of Effect with 130.
      const code = server.code.includes("Kms.teardown") ? 0 : 130
      it.live(`and then exits with ${code}: ${server.where}`, () =>
        Effect.gen(function* () {
          const moved = { ...server, where: `run ${server.where}` }
          const file = Snippets.write(directory, moved, Snippets.onFreePorts(server.code))
          const NODE_OPTIONS = `--conditions=effect-kms-source --import=${announce}`
          const running = yield* start(file, { env: { NODE_OPTIONS, PORT: "0" } })
          // One line a listener: with the last of them the program is up.
          yield* running.printed(new RegExp(`(?:Announced: \\S+[^]*?){${server.listeners}}`))
          yield* running.kill("SIGTERM")
          const ended = yield* running.ended
          assert.deepStrictEqual([ended.code, ended.signal], [code, null], running.output())
        })
      )
    }
  })
})
