"""Torsos, recurrent core and the agent made of them and a frame stack."""

from scalable_agent.networks.agent import LSTM_SIZE, Agent, AgentState
from scalable_agent.networks.torsos import find_torso, resolve

__all__ = ('LSTM_SIZE', 'Agent', 'AgentState', 'find_torso', 'resolve')
