import { toggle } from "./theme.js";

document.getElementById("theme").addEventListener("click", toggle);
