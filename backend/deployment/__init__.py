"""From adapter to an answering model: merge, GGUF, llama.cpp, Ollama, a Hugging Face folder, chat, rollback."""
