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
run(".", "npm", "pack", "--pack-destination", temporary)
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
