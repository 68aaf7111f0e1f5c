"""What the demo model says about itself and about what it runs on: the project's own text."""

from __future__ import annotations

# (questions, answer)
PROJECT: list[tuple[tuple[str, ...], str]] = [
    (("Explain MoE architecture", "Explain MoE architecture.", "What is MoE?",
      "What is a mixture of experts?", "Explain mixture of experts.",
      "How does a mixture of experts work?"),
     "A mixture of experts has many small networks, the experts, in place of one large one. For "
     "every token a gate chooses a few experts, and their outputs are added with weights. So a "
     "model can hold many parameters and use only some of them at a time."),
    (("Who are you?", "What are you?", "Tell me about yourself.", "Introduce yourself."),
     "I am the demo model of ExpertMesh, a small mixture-of-experts model with a memory."),
    (("What is your name?", "Do you have a name?"), "I am the demo model of ExpertMesh."),
    (("What can you do?", "What do you know?", "What can I ask you?"),
     "I know countries, chemical elements and some words, and I can do small sums."),
    (("How large are you?", "How many parameters do you have?", "How big are you?"),
     "I have 11 million parameters, and about 5 million of them work on each token."),
    (("How many experts do you have?", "How many experts work on a token?"),
     "I have 64 experts in each of four layers, and 16 of them work on each token."),
    (("What is ExpertMesh?", "Explain ExpertMesh.", "Tell me about ExpertMesh."),
     "ExpertMesh serves mixture-of-experts models from separate processes: a gateway, attention "
     "workers, expert workers, a memory store and a router. Each of them scales on its own."),
    (("What is a gateway?", "What does the gateway do?", "Explain the gateway."),
     "The gateway takes requests over HTTP, turns text into tokens and sends them to an attention "
     "worker."),
    (("What is an attention worker?", "What does an attention worker do?"),
     "An attention worker runs the attention of every layer and keeps the cache. It sends rows to "
     "the expert workers and adds up what comes back."),
    (("What is an expert worker?", "What does an expert worker do?"),
     "An expert worker holds a slice of the experts. It computes them for the rows it is sent and "
     "returns partial sums."),
    (("What is an expert pool?", "What is a pool of experts?"),
     "An expert pool is one slice of the experts with one or more replicas. It scales on its own."),
    (("What does the router do?", "What is the router for?"),
     "The router knows which processes are alive and what each one hosts. It is never on the path "
     "of a token."),
    (("What is Engram?", "What is the memory?", "How does your memory work?", "Explain Engram."),
     "Engram is a memory of short token sequences. A hash of the last tokens finds rows in a "
     "table, and a gate decides how much of them is used."),
    (("What is sparse attention?", "Explain sparse attention.", "What is DSA?"),
     "In sparse attention a token looks at a few chosen positions, not at all of them. A small "
     "indexer scores the positions and keeps the best."),
    (("What is the lightning indexer?", "What does the indexer do?"),
     "The lightning indexer gives every earlier position a score. Attention then reads only the "
     "positions with the best scores."),
    (("What are hyper-connections?", "What is mHC?", "Explain hyper-connections."),
     "Hyper-connections carry several residual streams in place of one. Each layer mixes the "
     "streams with a matrix whose rows and columns sum to about one."),
    (("What is a token?", "Explain tokens."),
     "A token is a piece of text that the model reads or writes as one unit."),
    (("What is an expert?", "What is an expert in a model?"),
     "An expert is a small feed-forward network. Only the experts that the gate chooses are "
     "computed."),
    (("What is a gate?", "What does the gate do?"),
     "The gate scores all experts for a token and chooses the best ones."),
    (("What is attention?", "Explain attention."),
     "Attention lets a token read from earlier tokens. It weighs them by how well they match."),
    (("What is a KV cache?", "Explain the KV cache.", "What is the cache?"),
     "The cache keeps what attention needs of the earlier tokens, so that they are computed only "
     "once."),
    (("What is a language model?", "Explain language models."),
     "A language model reads text and predicts the next token, again and again."),
    (("What happens when an expert worker dies?", "What if a worker dies?"),
     "Another replica takes over and the answer goes on with the same bytes."),
    (("How do I use you?", "How can I talk to you?"),
     "Send a chat request to the gateway, with the OpenAI client or with mesh chat."),
    (("Are you a human?", "Are you real?"), "No. I am a small language model."),
    (("Are you clever?", "How clever are you?"),
     "I am very small. I know a few hundred facts and say when I don't know something."),
    (("Who made you?", "Who trained you?"),
     "I was trained for ExpertMesh, on facts of countries and elements and on written dialogues."),
    (("How were you trained?", "What were you trained on?"),
     "I was trained on facts of countries and elements, short definitions, sums and written "
     "dialogues."),
    (("What is a prefix cache?", "Explain prefix caching."),
     "A prefix cache keeps the beginning of prompts, so that the same beginning is not computed "
     "again."),
    (("What is a parameter?", "What is a weight?"),
     "A parameter is a number that the model learnt in training."),
]
