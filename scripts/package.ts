// Packs the library as it would be published, has publint and attw look at the tarball, then uses it as a stranger would:
// installed with its peers into an empty project, type-checked there without skipLibCheck, and run.
import { execFileSync } from "node:child_process"
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const temporary = mkdtempSync(join(tmpdir(), "effect-kms-"))
process.on("exit", () => rmSync(temporary, { recursive: true, force: true }))

const run = (cwd: string, command: string, ...args: Array<string>) => {
  console.log(`\n> ${command} ${args.join(" ")}`)
  execFileSync(command, args, { cwd, stdio: "inherit" })
}
const versionOf = (directory: string): string =>
  JSON.parse(readFileSync(join(directory, "package.json"), "utf8")).version
const installed = (name: string) => `${name}@${versionOf(join("node_modules", name))}`

const tarball = join(temporary, `effect-kms-${versionOf(".")}.tgz`)
run(".", "npm", "pack", "--silent", "--pack-destination", temporary)
run(".", "publint", "--strict", tarball)
run(".", "attw", "--profile", "esm-only", tarball)

const project = join(temporary, "project")
mkdirSync(project)
copyFileSync("scripts/package-consumer.ts", join(project, "main.ts"))
writeFileSync(join(project, "package.json"), JSON.stringify({ type: "module", private: true }))
writeFileSync(
  join(project, "tsconfig.json"),
  JSON.stringify({
    compilerOptions: {
      target: "ES2022",
      lib: ["ES2022", "DOM"],
      types: ["node"],
      module: "NodeNext",
      noEmit: true,
      strict: true,
      exactOptionalPropertyTypes: true,
      skipLibCheck: false
    }
  })
)
const peers = ["effect", "@effect/platform-node", "@types/node"].map(installed)
run(project, "npm", "install", "--no-audit", "--no-fund", tarball, ...peers)
run(project, "tsc")
run(project, "node", "main.ts")

// What a stranger exports names what the package exports, or the types are lost on whoever uses the stranger's library.
writeFileSync(
  join(project, "library.ts"),
  `import { Effect, Layer } from "effect"
import { Kms, KmsHttp } from "effect-kms"
import { createServer } from "node:http"
export const main = Layer.empty.pipe(Layer.provide(KmsHttp.layer(createServer, { port: 0 })), Kms.launch())
export const status = Kms.status
export const reason = Effect.map(Kms.phase, (phase) => phase._tag === "Running" ? undefined : phase.reason)
`
)
writeFileSync(
  join(project, "reader.ts"),
  `import type { Effect } from "effect"
import type { main, reason, status } from "./library.js"
type Not<A> = [A] extends [number] ? true : never
// @ts-expect-error: an error of the shutdown is not a number
const error: Not<Effect.Error<typeof main>> = true
// @ts-expect-error: nor is a status, or a reason
const values: Not<Effect.Success<typeof status>> | Not<NonNullable<Effect.Success<typeof reason>>> = true
export { error, values }
`
)
const emitted = ["--target", "ES2022", "--module", "NodeNext", "--types", "node", "--strict", "--skipLibCheck"]
run(project, "tsc", "library.ts", "--ignoreConfig", "--declaration", "--emitDeclarationOnly", ...emitted)
rmSync(join(project, "library.ts"))
run(project, "tsc", "reader.ts", "--ignoreConfig", "--noEmit", ...emitted)
